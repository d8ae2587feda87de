"""Variables that look like settings and are none are named, with what may be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.setting_sources import environment_name
from app.settings import Settings, load
from app.strays import strays


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("HILO_WEBHOOK_SECRT", "HILO_WEBHOOK_SECRET"),
        ("HILO_WEBHOOKSECRET", "HILO_WEBHOOK_SECRET"),
        ("hilo_quiet_second", "HILO_QUIET_SECONDS"),
        ("HILO_OPENAI_API_KEY", "OPENAI_API_KEY"),
        ("HILO_WHAPI_TOKEN", "WHAPI_TOKEN"),
        ("HILO_DATABSE_URL", "HILO_DATABASE_URL"),
        ("HILO_COLOUR_OF_THE_SKY", ""),
    ],
)
def test_what_is_misspelt_is_named_with_what_is_meant(name: str, near: str) -> None:
    (stray,) = strays(load(), {name: "s3cret", "PATH": "/bin"})
    assert (stray.name, stray.place, stray.near) == (name.upper(), "environment", near)
    assert "s3cret" not in str(stray)
    assert (f"did you mean {near}?" if near else "hilo config show") in str(stray)


def test_settings_and_what_tests_and_benchmarks_are_told_by_are_none() -> None:
    known = dict.fromkeys(map(environment_name, Settings.model_fields), "1")
    others = {"HILO_TEST_POSTGRES_URL": "1", "HILO_BENCH_POSTGRES_URL": "1", "hilo_port": "1"}
    assert strays(load(), known | others) == ()


def test_the_file_of_settings_is_looked_through_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HILO_MODL=x\nHILO_PORT=1\nOTHERS=2\n", "utf-8")
    (stray,) = strays(load(), {})
    assert (stray.name, stray.place, stray.near) == ("HILO_MODL", ".env", "HILO_MODEL")


def test_what_a_bot_s_table_names_is_none(tmp_path: Path) -> None:
    content = '[bots.sales]\nchannel = "A"\nwebhook_secret_env = "HILO_OF_SALES"\n'
    (tmp_path / "bots.toml").write_text(content, "utf-8")
    settings = load(bots=str(tmp_path / "bots.toml"))
    variables = {"HILO_OF_SALES": "1", "HILO_OF_SALE": "1"}
    assert [stray.name for stray in strays(settings, variables)] == ["HILO_OF_SALE"]
    (tmp_path / "bots.toml").write_text("bots =", "utf-8")
    assert [stray.name for stray in strays(settings, {"HILO_X": ""})] == ["HILO_X"]
