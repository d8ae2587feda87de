"""`hilo users show`: one person as the log tells it now, and no more than the keys allow."""

from __future__ import annotations

from app.aggregates import events as e
from eventstore.keyring import Handle
from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import ANA, ANA_LID, BEN, House


def test_a_user_is_shown_with_handles_thread_and_tokens(hilo: Hilo, house: House) -> None:
    shown = hilo("users", "show", ANA, "--json").json
    assert shown["user"] == house.people[ANA]
    assert {(h["kind"], h["value"]) for h in shown["handles"]} == {
        ("phone", ANA),
        ("lid", ANA_LID),
    }
    assert shown["thread"]["tokens"] == 1234
    assert shown["thread"]["band"] == "normal"
    assert shown["last_activity"] > shown["registered_at"]
    assert [turn["state"] for turn in shown["turns"]] == ["delivering"] or shown["turns"] == []
    assert "1,234 tokens" in hilo("users", "show", ANA).out


def test_what_is_open_is_shown(hilo: Hilo, house: House) -> None:
    (turn,) = hilo("users", "show", BEN, "--json").json["turns"]
    assert (turn["state"], turn["messages"], turn["attempts"]) == ("parked", 1, 3)
    assert "parked" in hilo("users", "show", BEN).out


def test_the_name_is_opened_with_the_keyring(hilo: Hilo, house: House) -> None:
    person, stream = house.people[BEN], house.stream(BEN)
    profile = house.sealer.seal(person, stream, "profile", e.Profile("Ben", ("vip",)))
    house.append(BEN, e.ProfileUpdated(profile=profile))
    assert hilo("users", "show", BEN, "--json").json["name"] == "Ben"


def test_what_they_call_themselves_is_told_by_their_last_message_that_says_it(
    hilo: Hilo, house: House
) -> None:
    assert hilo("users", "show", BEN, "--json").json["user_name"] is None
    before = house.write(BEN, "hola", name="Benny").last_position
    house.write(BEN, "otra", name="Benito")
    house.write(BEN, "y otra")
    shown = hilo("users", "show", BEN, "--json").json
    assert (shown["name"], shown["user_name"]) == (None, "Benito")
    shown = hilo("users", "show", BEN, "--as-of", str(before), "--json").json
    assert shown["user_name"] == "Benny"


def test_without_keys_the_person_stays_a_pseudonym(hilo: Hilo, house: House) -> None:
    (house.data / "kek").unlink()
    ran = hilo("users", "show", house.people[BEN], "--json")
    assert ran.code == 0
    assert ran.json["handles"] is None
    assert "HILO_KEK" in ran.json["hidden"]
    assert BEN not in ran.out


def told(shown: str) -> dict[str, str]:
    """Return what is printed of a user, by name."""
    pairs = (line.split("  ", 1) for line in shown.splitlines())
    return {name: value.strip() for name, value in pairs}


def test_of_a_name_that_is_not_there_it_is_told_why(hilo: Hilo, house: House) -> None:
    shown = told(hilo("users", "show", BEN).out)
    assert shown["name"] == "not told: no address book and no import has named them"
    assert shown["user name"] == "not told: not in the last 100 events"
    person, stream = house.people[BEN], house.stream(BEN)
    empty = house.sealer.seal(person, stream, "profile", e.Profile("", ("vip",)))
    house.append(BEN, e.ProfileUpdated(profile=empty))
    assert told(hilo("users", "show", BEN).out)["name"] == "empty in the address book"
    (house.data / "kek").rename(house.data / "elsewhere")
    shown = told(hilo("users", "show", person).out)
    sealed = "sealed, and could not be opened: see hidden"
    assert [shown[name] for name in ("handles", "name", "user name")] == [sealed] * 3
    assert "HILO_KEK" in shown["hidden"]
    shown = told(hilo("users", "show", house.people[ANA]).out)
    assert (shown["name"][:8], shown["user name"]) == ("not told", sealed)


def test_whoever_has_a_pseudonym_and_no_event_is_nobody_yet(hilo: Hilo, house: House) -> None:
    house.keyring.register([(Handle("phone", "15550109999"),)])
    ran = hilo("users", "show", "15550109999")
    assert (ran.code, "no event in this log" in ran.err) == (1, True)


def test_nobody_is_a_user(hilo: Hilo, house: House) -> None:
    assert hilo("users", "show", "nobody").code == 1
    assert hilo("users", "show").code == 2
