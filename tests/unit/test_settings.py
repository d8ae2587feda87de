"""Settings that say where the log and the keys are, and that nobody sees what opens them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.addresses import without_secrets
from app.settings import Settings, SettingsError, load

LOG = "postgresql://hilo:hunter2@db.example/hilo"
KEYS = "postgresql://keys:hunter3@db.example/hilo_keys"


@pytest.mark.parametrize(
    "url", ["mysql://hilo:hunter2@db/hilo", "db.example", "sqlite:///hunter2.db", "POSTGRES"]
)
def test_only_postgresql_is_taken_for_a_database(url: str) -> None:
    with pytest.raises(SettingsError, match="HILO_DATABASE_URL") as caught:
        load(database_url=url)
    assert "hunter2" not in str(caught.value)


def test_a_log_in_postgresql_needs_another_database_for_its_keys() -> None:
    with pytest.raises(SettingsError, match="HILO_KEYS_DATABASE_URL is not"):
        load(database_url=LOG)
    with pytest.raises(SettingsError, match="is the database of the log") as caught:
        load(database_url=LOG, keys_database_url="postgres://keys:hunter3@db.example:5432/hilo")
    assert "hunter" not in str(caught.value)
    assert load(database_url=LOG, keys_database_url=KEYS).on_postgres


def test_a_bots_name_must_fit_into_that_of_a_schema() -> None:
    for name in ("b" * 45, "a-b"):
        with pytest.raises(SettingsError, match="HILO_BOT"):
            load(database_url=LOG, keys_database_url=KEYS, bot=name)
        assert load(bot=name).bot == name


def test_the_own_name_of_the_setting_comes_before_the_common_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HILO_KEYS_DATABASE_URL", KEYS)
    monkeypatch.setenv("DATABASE_URL", LOG)
    assert load().database_url.get_secret_value() == LOG
    monkeypatch.setenv("HILO_DATABASE_URL", "")
    assert not load().on_postgres
    monkeypatch.delenv("HILO_DATABASE_URL")
    assert not load(database_url="").on_postgres


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OPENAI_API_KEY", "sk-…", "OPENAI_API_KEY: it has characters that no key has"),
        ("WHAPI_TOKEN", "two words", "WHAPI_TOKEN: it has characters that no key has"),
        ("OPENAI_BASE_URL", "nonsense", "OPENAI_BASE_URL: an address begins with https://"),
        ("HILO_MODEL", " ", "HILO_MODEL=' ': it is empty; leave it out for the default, 'gpt-5"),
        ("HILO_APOLOGY", "", "HILO_APOLOGY='': it is empty"),
        ("HILO_BOT", "Mi Bot", "HILO_BOT='Mi Bot': a bot is called by lower case letters"),
        ("HILO_PORT", "many", "HILO_PORT='many': it is no whole number"),
        ("HILO_QUIET_SECONDS", "few", "HILO_QUIET_SECONDS='few': it is no number"),
        ("HILO_THREAD_FILES", "perhaps", "HILO_THREAD_FILES='perhaps': it is neither true nor"),
        ("DATABASE_URL", "mysql://h/d", " DATABASE_URL: it begins with postgresql://"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert said in str(caught.value)


def test_blanks_around_a_key_are_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123 \n")
    assert load().openai_api_key.get_secret_value() == "sk-0123"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (LOG, "postgresql://********@db.example/hilo"),
        ("postgresql:///hilo?host=/run/pg&password=x", None),
        ("postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require"),
        ("postgresql://hilo:a?b@host/d", "postgresql://********@host/d"),
        ("https://user:x@host/v1", "https://********@host/v1"),
        ("no address", "no address"),
    ],
)
def test_an_address_is_shown_without_what_opens_it(address: str, shown: str | None) -> None:
    masked = "postgresql:///hilo?host=/run/pg&password=********"
    assert without_secrets(address) == (shown or masked)


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_servers_with_directories_of_their_own_have_technical_logs_of_their_own() -> None:
    one, two = load(data=Path("one")), load(data=Path("two"))
    assert (one.logs_directory, two.logs_directory) == (Path("one/logs"), Path("two/logs"))
    assert load(data=Path("one"), logs=Path("elsewhere")).logs_directory == Path("elsewhere")


def test_a_node_that_would_be_dead_between_two_beats_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least twice HILO_BEAT_SECONDS=60"):
        load(beat_seconds=60)
    assert load(beat_seconds=60, dead_seconds=120).dead_seconds == 120
