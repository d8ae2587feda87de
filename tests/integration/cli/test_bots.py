"""Several bots on one disk, looked at one by one; the commands of docs/bots.md run as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import House

PAGE = (Path(__file__).parents[3] / "docs" / "bots.md").read_text("utf-8")
EXAMPLE = PAGE.partition("```toml\n")[2].partition("```")[0]
SECRETS = {name: name.lower() for name in re.findall(r'_env = "(\w+)"', EXAMPLE)}


def test_the_commands_of_the_page_run_as_they_stand(hilo: Hilo, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with House(data, "help") as house:
        house.furnish()
    (data / "bots.toml").write_text(EXAMPLE)
    assert hilo("turns", "retry", "--all", "--bot", "help", **SECRETS).code == 0
    block = PAGE.partition("```console\n")[2].partition("```")[0]
    lines = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert len(lines) == 5
    for words in lines:
        if words != ["serve"]:
            ran = hilo(*words, **SECRETS)
            assert ran.code == 0, (words, ran.err)


def test_a_command_about_one_bot_sees_no_other(hilo: Hilo, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for bot in ("sales", "help"):
        with House(data, bot) as house:
            house.arrive("34600111222")
            if bot == "help":
                house.write("34600111222", "only here")
    (data / "bots.toml").write_text(EXAMPLE)
    events = {
        bot: hilo("log", "stats", "--bot", bot, "--json", **SECRETS).json["position"]
        for bot in ("sales", "help")
    }
    assert events == {"sales": 1, "help": 2}
    unnamed = hilo("log", "stats", **SECRETS)
    assert (unnamed.code, "--bot" in unnamed.err) == (2, True)
    unknown = hilo("log", "stats", "--bot", "default", **SECRETS)
    assert (unknown.code, "sales, help" in unknown.err) == (2, True)


def test_the_bots_are_listed_with_what_is_their_own(hilo: Hilo, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bots.toml").write_text(EXAMPLE)
    sales, helping = hilo("bots", "list", "--json", **SECRETS).json
    assert (sales["bot"], sales["channel"]) == ("sales", "HERON-K7Q2M")
    assert helping["webhooks"] == "/webhooks/help/whapi"
    assert "whapi_token" in sales["own"]
    shown = hilo("config", "show", "--bot", "help", "--json", **SECRETS).json
    assert shown["model"]["value"] == "gpt-5"
    assert shown["model"]["from"] == "bots.toml"
    assert shown["whapi_token"]["value"] == "********"
    listed = hilo("bots", "list", **SECRETS).out + hilo("config", "show", "--bot", "help").err
    assert not [secret for secret in SECRETS.values() if secret in listed]
