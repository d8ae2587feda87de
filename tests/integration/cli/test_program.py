"""`hilo` itself: fast to start, clear when it fails, and honest about its settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Hilo, environment
from tests.integration.cli.house import House

START_SECONDS = 0.8


def test_help_is_there_at_once(tmp_path: Path) -> None:
    def once() -> float:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "app.cli", "--help"],
            env=environment(tmp_path),
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - began

    assert min(once() for _ in range(5)) < START_SECONDS


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys, app.cli\n"
        "app.cli.main(['--help'])\n"
        "heavy = {'eventstore', 'openai', 'fastapi', 'pydantic', 'cryptography', 'sqlite_utils'}\n"
        "sys.exit(bool(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(tmp_path), check=False, capture_output=True
    )
    assert done.returncode == 0


def test_the_version_is_told(hilo: Hilo) -> None:
    assert hilo("--version").out.startswith("hilo ")
    versions = hilo("version", "--json").json
    assert {"hilo", "python", "sqlite", "eventsourcing"} <= versions.keys()
    assert versions["python"] in hilo("version").out


def test_json_may_be_asked_for_before_the_command(hilo: Hilo, house: House) -> None:
    after = hilo("threads", "list", "--json")
    assert hilo("--json", "threads", "list") == after == hilo("threads", "--json", "list")
    assert hilo("--json", "log", "stats").json["users"] == 3
    refused = hilo("--json", "log", "show", "--", "--nobody")
    assert (refused.code, json.loads(refused.err)["exit_code"]) == (1, 1)
    assert json.loads(hilo("--json").err)["exit_code"] == 2


def test_every_setting_is_shown_with_where_it_came_from(hilo: Hilo, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HILO_QUIET_SECONDS=7\nWHAPI_TOKEN=whapi-secret\n", "utf-8")
    secrets = {"HILO_KEK": "kek-secret", "OPENAI_BASE_URL": "https://me:pass-secret@host/v1"}
    shown = hilo("config", "show", "--bot", "shop", "--json", **secrets)
    values = shown.json
    assert all(value.pop("description") for value in values.values())
    assert values["bot"] == {"value": "shop", "from": "command line"}
    assert values["data"]["from"] == "environment"
    assert values["quiet_seconds"] == {"value": 7.0, "from": ".env file"}
    assert values["model"]["from"] == "default"
    assert values["kek"] == {"value": "********", "from": "environment"}
    assert values["whapi_token"] == {"value": "********", "from": ".env file"}
    assert values["openai_base_url"]["value"] == "https://********@host/v1"
    assert values["openai_api_key"]["value"] == ""
    assert values["logs"]["value"] == ""
    plain = hilo("config", "show", **secrets).out
    for secret in ("kek-secret", "pass-secret", "whapi-secret"):
        assert secret not in shown.out + plain
    assert "WHAPI_TOKEN" in plain
    assert "HILO_QUIET_SECONDS" in plain


def test_a_setting_that_is_none_is_named_where_somebody_looks(hilo: Hilo, tmp_path: Path) -> None:
    misspelt = {"HILO_WEBHOOK_SECRT": "s3cret"}
    said = "HILO_WEBHOOK_SECRT (environment) is no setting, and is not used: did you mean "
    shown = hilo("config", "show", "--json", **misspelt)
    assert f"{said}HILO_WEBHOOK_SECRET?" in shown.err
    assert shown.json["webhook_secret"]["value"] == ""
    served = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve", "--host", "0.0.0.0", "--port", "0"],
        cwd=tmp_path,
        env=environment(tmp_path) | misspelt,
        capture_output=True,
        text=True,
        check=False,
    )
    assert served.returncode == 2
    first, second = served.stderr.splitlines()[:2]
    assert first == f"!! {said}HILO_WEBHOOK_SECRET?"
    assert "need a shared secret" in second
    assert "s3cret" not in served.stderr + shown.err
    log = (tmp_path / "data" / "logs" / "technical.log").read_text("utf-8")
    assert "UNKNOWN_SETTING" in log
    assert "s3cret" not in log


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["no-such-command"], {}, "hilo --help"),
        (["--no-such-option"], {}, "hilo --help"),
        (["config", "show", "--bot", "Not A Name"], {}, "HILO_BOT='Not A Name'"),
        (["log", "stats"], {"HILO_PORT": "many"}, "HILO_PORT='many'"),
        (["serve", "--port", "70000"], {}, "--port"),
        (["demo", "--users", "0"], {}, "--users"),
        (["demo", "--nodes", "2"], {}, "--store postgres"),
        (["bench", "--events", "none"], {}, "--events"),
        (["bench", "--rounds", "0"], {}, "--rounds"),
        (["chat", "--phone", "abc"], {}, "--phone"),
        (["chat", "--url", "localhost:3010"], {}, "http://"),
        (["demo", "--keep", "full"], {}, "--keep"),
        (["users", "show", "ana", "--as-of", " "], {}, "--as-of"),
    ],
)
def test_wrong_usage_is_refused_before_anything_starts(
    hilo: Hilo, tmp_path: Path, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    ran = hilo(*arguments, **variables)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    as_json = json.loads(hilo(*arguments, "--json", **variables).err)
    assert as_json["exit_code"] == 2


@pytest.mark.parametrize(
    "command", ["keys revoke ID", "turns drop ana", "projections skip usage --position 1"]
)
def test_whoever_gives_no_reason_is_told_that_one_is_kept_and_shown_how(
    hilo: Hilo, command: str
) -> None:
    ran = hilo(*command.split())
    assert (ran.code, ran.out) == (2, "")
    assert re.search(r"'--why': the reason, kept in the .*log.*, as in --why \"\w+", ran.err)


def test_the_help_of_what_is_missing_is_in_the_error_unless_that_has_the_choices(
    hilo: Hilo,
) -> None:
    assert "'ID': of hilo keys list. See: hilo keys revoke --help" in hilo("keys", "revoke").err
    assert "texts included" not in hilo("keys", "create").err
    assert "auditor" in hilo("keys", "create").err


def test_a_key_is_not_revoked_for_an_empty_reason(hilo: Hilo) -> None:
    ran = hilo("keys", "revoke", "ID", "--why", " ")
    assert (ran.code, 'as in --why "' in ran.err) == (2, True)


def test_a_key_that_is_not_there_and_one_that_is_revoked_already_are_told_apart(
    hilo: Hilo,
) -> None:
    made = hilo("keys", "create", "--role", "analyst", "--expires", "1d", "--json").json
    revoke = ("keys", "revoke", made["id"], "--why", "lost")
    assert hilo(*revoke).code == 0
    again = hilo(*revoke)
    assert (again.code, f"the key '{made['id']}' is revoked already" in again.err) == (1, True)
    unknown = hilo("keys", "revoke", "nope", "--why", "lost")
    assert (unknown.code, "there is no key 'nope': " in unknown.err) == (1, True)
    acts = hilo("control", "log", "--json").out
    assert acts.count("keys revoke") == 1


def test_a_suggestion_ends_as_a_question_does(hilo: Hilo) -> None:
    said = hilo("lgo").err
    assert "Did you mean 'log'? See: hilo --help" in said
    assert "?." not in said


def test_a_part_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.cli import main  # noqa: PLC0415 - after the module is hidden

    monkeypatch.setitem(sys.modules, "bench.__main__", None)
    assert main(["bench"]) == 3
    assert "bench.__main__" in capsys.readouterr().err


def test_ctrl_c_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], house: House
) -> None:
    from app.cli import main, program  # noqa: PLC0415

    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_run", interrupted)
    assert main(["log", "tail"]) == 130
    assert capsys.readouterr().err == ""


def test_a_benchmark_that_is_none_is_refused_and_those_there_are_named_once(hilo: Hilo) -> None:
    ran = hilo("bench", "--only", "no such row")
    assert (ran.code, ran.out, ran.err.count("cold-load,")) == (2, "", 1)
    assert ran.err.startswith("hilo: --only no such row: there is no such benchmark")
    as_json = hilo("bench", "--only", "disk", "--only", "nope", "--json")
    assert (as_json.code, as_json.out) == (2, "")
    error = json.loads(as_json.err)
    assert (error["exit_code"], error["error"].count("cold-load,")) == (2, 1)


def test_keys_of_a_directory_that_is_not_there_are_not_called_none(
    hilo: Hilo, tmp_path: Path
) -> None:
    ran = hilo("keys", "list", "--data", str(tmp_path / "nowhere"))
    assert (ran.code, ran.out) == (3, "")
    assert "does not exist" in ran.err


@pytest.mark.parametrize(
    "expiry", ["never", "1234", "2026-11-20T14:30:00", "1999-12-31T00:00Z", "0d", "99999999999d"]
)
def test_what_is_no_expiry_of_a_key_is_answered_with_what_is_one(hilo: Hilo, expiry: str) -> None:
    ran = hilo("keys", "create", "--role", "analyst", "--expires", expiry)
    assert (ran.code, ran.out) == (2, "")
    for part in (f"--expires {expiry}: ", "30d", "with its zone", "until it is revoked"):
        assert part in ran.err
    assert "position" not in ran.err


def test_who_makes_the_first_key_hears_that_everybody_needs_one_now(hilo: Hilo) -> None:
    said = "from now on everybody needs one, here too"
    first = hilo("keys", "create", "--role", "analyst")
    second = hilo("keys", "create", "--role", "analyst")
    assert (first.code, said in first.err, said in second.err) == (0, True, False)
    assert first.out.startswith("hilo_")


def test_a_value_that_no_option_has_is_refused_in_our_own_words(hilo: Hilo) -> None:
    ran = hilo("keys", "create", "--role", "boss")
    assert (ran.code, "Value error" in ran.err) == (2, False)
    assert "'--role': 'boss' is not one of 'auditor', 'operator'" in ran.err
