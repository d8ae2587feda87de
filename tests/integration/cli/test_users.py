"""`hilo users`: who there is, and one person as the log tells it: no more than the keys allow."""

from __future__ import annotations

import json

import pytest

from app.aggregates import events as e
from eventstore.keyring import Handle
from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import ANA, ANA_LID, BEN, EVA, House


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


@pytest.fixture
def built(hilo: Hilo, house: House) -> House:
    """The installation with its read models built; the address book knows Ben."""
    person, stream = house.people[BEN], house.stream(BEN)
    profile = house.sealer.seal(person, stream, "profile", e.Profile("Ben Example"))
    house.append(BEN, e.ProfileUpdated(profile=profile))
    house.write(EVA, "noch etwas", name="Evi")
    assert hilo("projections", "rebuild").code == 0
    return house


def test_people_are_listed_without_saying_who_they_are(hilo: Hilo, built: House) -> None:
    ran = hilo("users", "list")
    assert ran.code == 0
    assert [line.split()[:3] for line in ran.out.splitlines()[1:]] == [
        [built.people[phone], "«sealed»", "«sealed»"] for phone in (EVA, BEN, ANA)
    ]
    assert "--open" in ran.err
    listed = hilo("users", "list", "--json").json
    assert (listed["opened"], listed["position"]) == (False, built.log.head().position)
    assert [(u["handles"], u["name"], u["user_name"]) for u in listed["users"]] == [(None,) * 3] * 3
    for known in (ANA, BEN, EVA, "Ben Example", "Evi"):
        assert known not in ran.out + json.dumps(listed)


def test_opened_the_list_says_who_is_who(hilo: Hilo, built: House) -> None:
    shown = [line.split("  ") for line in hilo("users", "list", "--open").out.splitlines()[1:]]
    assert [[cell.strip() for cell in row if cell][:3] for row in shown] == [
        [built.people[EVA], EVA, "Evi"],
        [built.people[BEN], BEN, "Ben Example"],
        [built.people[ANA], ANA, "not told"],
    ]
    eva, ben, ana = hilo("users", "list", "--open", "--json").json["users"]
    assert (eva["name"], eva["user_name"]) == (None, "Evi")
    assert (ben["name"], ben["user_name"]) == ("Ben Example", None)
    assert {h["value"] for h in ana["handles"]} == {ANA, ANA_LID}
    assert (ana["tokens"], ana["messages_in"]) == (1_234, 1)


def test_threads_are_listed_with_who_people_are_only_if_asked(hilo: Hilo, built: House) -> None:
    known = {ANA, BEN, EVA, "Ben Example", "Evi"}
    for words in (["--open"], ["--open", "--json"], ["--open", "--as-of", "now"]):
        out = hilo("threads", "list", *words).out
        assert {one for one in known if one in out} == known
    for words in ([], ["--json"]):
        out = hilo("threads", "list", *words).out
        assert not [one for one in known if one in out]
    by_tokens = hilo("threads", "list", "--open", "--sort", "tokens").out
    assert (ANA in by_tokens, BEN in by_tokens) == (True, False)


def test_a_list_of_people_goes_on_page_by_page(hilo: Hilo, built: House) -> None:
    whole = [user["user"] for user in hilo("users", "list", "--json").json["users"]]
    pages: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = hilo("users", "list", "--limit", 2, "--offset", offset, "--json").json
        pages += [user["user"] for user in page["users"]]
        offset = page["next"]
    assert pages == whole
    assert "--offset 2" in hilo("users", "list", "-n", 2).err
    assert hilo("users", "list", "-n", 3, "--json").json["next"] is None
    beyond = hilo("users", "list", "--offset", 3)
    assert (beyond.code, beyond.out, "beyond the last" in beyond.err) == (0, "", True)
    for wrong in (["--limit", 0], ["--limit", 1001], ["--offset", -1], ["--offset", 10**30]):
        assert hilo("users", "list", *wrong).code == 2


def test_people_are_listed_as_of_a_moment(hilo: Hilo, built: House) -> None:
    then = hilo("users", "list", "--open", "--as-of", 1, "--json").json
    assert (then["position"], [user["user"] for user in then["users"]]) == (1, [built.people[ANA]])


def test_whoever_cannot_be_opened_does_not_keep_others_from_being_listed(
    hilo: Hilo, built: House
) -> None:
    built.keyring.destroy(built.people[BEN])
    shown = hilo("users", "list", "--open")
    assert shown.code == 0
    (ben,) = (line for line in shown.out.splitlines() if built.people[BEN] in line)
    assert "«key missing»" in ben
    assert ANA in shown.out
    rows = hilo("users", "list", "--open", "--json").json["users"]
    assert [row.get("hidden") for row in rows] == [None, "key missing", None]


@pytest.mark.parametrize("group", ["users", "threads"])
def test_without_keys_nobody_is_opened_and_the_list_is_there(
    hilo: Hilo, built: House, group: str
) -> None:
    (built.data / "kek").unlink()
    ran = hilo(group, "list", "--open")
    assert (ran.code, ran.out, "HILO_KEK" in ran.err) == (3, "", True)
    assert hilo(group, "list").code == 0


def test_names_that_stand_still_are_told_of_where_names_are_shown(hilo: Hilo, built: House) -> None:
    assert hilo("projections", "pause", "client_view").code == 0
    assert "hilo projections resume client_view" in hilo("users", "list", "--open").err
    assert "hilo projections resume" not in hilo("users", "list").err


def test_without_read_models_the_list_says_how_to_build_them(hilo: Hilo, house: House) -> None:
    ran = hilo("users", "list")
    assert (ran.code, ran.out, "hilo projections rebuild" in ran.err) == (3, "", True)


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
