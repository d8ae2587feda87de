"""The control log: what operators did stays on record, beside the bots and not in them."""

from __future__ import annotations

from pathlib import Path

from app import control
from app.settings import load
from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import ANA, BEN, House


def test_what_an_operator_does_is_on_record_with_who_and_why(hilo: Hilo, house: House) -> None:
    assert hilo("control", "log").code == 3
    assert hilo("turns", "retry", BEN, "--why", "the outage is over").code == 0
    assert hilo("projections", "rebuild", "thread_map", "--why", "curious").code == 0
    retried, rebuilt = hilo("control", "log", "--json").lines
    assert retried["stream"] == rebuilt["stream"] == "bot/default"
    assert retried["state"]["action"] == "turns retry"
    assert retried["state"]["about"] == [house.people[BEN]]
    assert retried["state"]["why"] == "the outage is over"
    assert retried["state"]["by"].startswith(f"{control.operator()}@")
    assert rebuilt["state"]["action"] == "projections rebuild"
    shown = hilo("control", "log", "-n", "1").out
    assert "projections rebuild thread_map: curious" in shown
    assert "turns retry" not in shown


def test_nothing_is_recorded_of_looking_and_of_what_was_not_meant(hilo: Hilo, house: House) -> None:
    assert hilo("turns", "list").code == 0
    assert hilo("turns", "drop", BEN, "--why", " ").code == 2
    assert hilo("projections", "rebuild", "no_such_model").code == 2
    assert hilo("turns", "retry", "--all").code == 0
    assert [line["state"]["action"] for line in hilo("control", "log", "--json").lines] == [
        "turns retry"
    ]


def test_what_cannot_be_recorded_is_not_done(hilo: Hilo, house: House) -> None:
    (house.data / "control.db").mkdir()
    before = house.log.head()
    assert hilo("turns", "drop", BEN, "--why", "nobody waits any more").code == 3
    assert house.log.head() == before


def test_no_number_and_no_secret_is_in_the_control_log(hilo: Hilo, house: House) -> None:
    secret, token = "kayak-of-the-bot", "token-of-the-bot"
    settings = load(
        data=house.data,
        webhook_secret=secret,
        whapi_token=token,
        openai_base_url=f"https://me:{secret}@example.org/v1",
        model="gpt-5",
    )
    control.opened(settings, settings, node="n", release="1")
    assert hilo("turns", "retry", BEN).code == 0
    (opened, _) = hilo("control", "log", "--json").lines
    assert opened["state"]["settings"]["model"] == "gpt-5"
    content = (house.data / "control.db").read_bytes()
    wal = house.data / "control.db-wal"
    content += wal.read_bytes() if wal.exists() else b""
    for hidden in (secret, token, ANA, BEN):
        assert hidden.encode() not in content


def test_a_bot_opened_as_before_is_not_news(tmp_path: Path, hilo: Hilo) -> None:
    settings = load(data=tmp_path / "data", model="gpt-5")
    settings.data.mkdir()
    for node in ("one", "two"):
        control.opened(settings, settings, node=node, release="1")
    changed = load(data=tmp_path / "data", model="gpt-5-mini")
    control.opened(changed, changed, node="one", release="1")
    control.opened(changed, changed, node="one", release="2")
    states = [line["state"] for line in hilo("control", "log", "--json").lines]
    assert [(s["node"], s["release"], s["settings"].get("model")) for s in states] == [
        ("one", "1", "gpt-5"),
        ("one", "1", None),
        ("one", "2", None),
    ]
