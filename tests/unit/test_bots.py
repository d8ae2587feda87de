"""Several bots by a file: each with its own settings, and no mistake that goes unnamed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.bots import OF_THE_NODE, bots_of, the_bot
from app.settings import SettingsError, load

TWO = """
[bots.sales]
channel = "SALES-1"
webhook_secret_env = "SALES_SECRET"
model = "gpt-5"
runs_at_once = 3

[bots.help]
channel = "HELP-1"
webhook_secret = "canoe"
"""


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALES_SECRET", "kayak")
    monkeypatch.setenv("HILO_WEBHOOK_SECRET", "of-the-installation")
    monkeypatch.setenv("WHAPI_TOKEN", "of-the-installation")
    monkeypatch.setenv("HILO_QUIET_SECONDS", "7")


def write(data: Path, content: str) -> Path:
    (data / "bots.toml").write_text(content)
    return data


def test_without_a_file_there_is_the_one_bot_of_the_settings(tmp_path: Path) -> None:
    settings = load(data=tmp_path)
    assert bots_of(settings) == (settings,)
    assert the_bot(settings) is settings


def test_each_bot_has_its_own_settings_and_the_installations_for_the_rest(tmp_path: Path) -> None:
    sales, helping = bots_of(load(data=write(tmp_path, TWO)))
    assert (sales.bot, sales.model, sales.runs_at_once) == ("sales", "gpt-5", 3)
    assert (helping.bot, helping.model, helping.runs_at_once) == ("help", "gpt-5-mini", 75)
    assert sales.webhook_secret.get_secret_value() == "kayak"
    assert sales.quiet_seconds == helping.quiet_seconds == 7
    assert sales.bot_directory == tmp_path / "sales"


def test_what_makes_a_bot_itself_is_never_the_installations(tmp_path: Path) -> None:
    (bot,) = bots_of(load(data=write(tmp_path, "[bots.one]"), channel="ANY-1"))
    assert bot.channel == ""
    assert bot.whapi_token.get_secret_value() == ""
    assert bot.webhook_secret.get_secret_value() == ""


def test_a_file_anywhere_may_be_named_and_must_be_there(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text(TWO)
    settings = load(data=tmp_path / "data", bots=str(elsewhere))
    assert [bot.bot for bot in bots_of(settings)] == ["sales", "help"]
    with pytest.raises(SettingsError, match="HILO_BOTS"):
        bots_of(load(data=tmp_path, bots=str(tmp_path / "none.toml")))


def test_a_command_about_one_bot_has_to_name_it_if_there_are_several(tmp_path: Path) -> None:
    data = write(tmp_path, TWO)
    assert the_bot(load(data=data, bot="help")).channel == "HELP-1"
    with pytest.raises(SettingsError, match=r"--bot \(sales, help\)"):
        the_bot(load(data=data))
    with pytest.raises(SettingsError, match="there is no bot 'helper'"):
        the_bot(load(data=data, bot="helper"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "[bots.one]\nmodle = 'x'",
            "[bots.one] modle: there is no such setting; did you mean mo",
        ),
        ("[bots.one]\nport = 1", "[bots.one] port: this is the node's"),
        ("[bots.one]\nquiet_seconds = -1", "[bots.one] quiet_seconds = -1: input should be"),
        ("[bots.one]\nattempts = 'many'", "[bots.one] attempts = 'many': input should be"),
        ("[bots.one]\nwebhook_secret = 17", "[bots.one] webhook_secret: input should be"),
        ("[bots.one]\nwhapi_token_env = 'NOT_THERE'", "the environment has no 'NOT_THERE'"),
        ("[bots.one]\nmodel = 'x'\nmodel_env = 'SALES_SECRET'", "given twice"),
        ("[bots.one]\ndatabase_url = 'mysql://u:hush@h/d'", "[bots.one] database_url: it begins"),
        ("[bots.one]\ndatabase_url = 'postgres://u:hush@h/d'", "KEYS_DATABASE_URL is not"),
        ("[bots.One]", "[bots.One]: a bot is called"),
        ("[bots.whapi]", "not whapi"),
        ("[bots]\none = 1", "[bots.one] is not a table"),
        ("[bot.one]", "[bot] is unknown"),
        ("", "names no bot"),
        ("[bots", "is not TOML"),
        (
            "[bots.a]\nchannel = 'X'\n[bots.b]\nchannel = 'X'",
            "[bots.a] and [bots.b] have the same ch",
        ),
        (
            "[bots.a]\nwebhook_secret = 'hush'\n[bots.b]\nwebhook_secret_env = 'HUSH'",
            "have the same webhook_secret",
        ),
        ("[bots.a]\nwhapi_token = 'hush'\n[bots.b]\nwhapi_token = 'hush'", "the same whapi_token"),
    ],
)
def test_a_mistake_is_named_with_file_table_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, said: str
) -> None:
    monkeypatch.setenv("HUSH", "hush")
    with pytest.raises(SettingsError) as caught:
        bots_of(load(data=write(tmp_path, content)))
    assert said in str(caught.value)
    assert "bots.toml" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_the_example_of_the_documentation_is_taken_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "bots.md").read_text("utf-8")
    example = page.partition("```toml\n")[2].partition("```")[0]
    for variable in set(re.findall(r'_env = "(\w+)"', example)):
        monkeypatch.setenv(variable, f"of-{variable}")
    sales, helping = bots_of(load(data=write(tmp_path, example)))
    assert (sales.runs_at_once, helping.model) == (20, "gpt-5")
    assert sales.whapi_token.get_secret_value() == "of-SALES_TOKEN"


def test_the_page_about_bots_names_what_no_table_may_have() -> None:
    page = (Path(__file__).parents[2] / "docs" / "bots.md").read_text("utf-8")
    mine = {"bot", "crash_at"}  # the table's own name; for fault tests
    assert not [name for name in OF_THE_NODE - mine if f"`{name}`" not in page]
