"""Any read as of any moment, and what changed between two (G2)."""

from __future__ import annotations

import pytest

from app.aggregates import events as e
from app.aggregates.user_state import STATE_SHAPE, pack
from app.projections.user_at import user_at
from app.times import iso
from eventstore.types import Snapshot
from tests.integration.cli.conftest import Hilo
from tests.integration.cli.house import ANA, BEN, House


@pytest.fixture
def reset(house: House) -> tuple[int, int]:
    """Ana's thread is reset and another begins; return the positions before and after."""
    before = house.log.head().position
    house.append(
        ANA,
        e.ThreadReset(thread="conv_5678", reason="manual", left_behind=1_234),
        e.ThreadStarted(thread="conv_new", reason="manual"),
    )
    return before, house.log.head().position


def test_a_user_is_shown_as_of_a_position_and_as_of_its_time(
    hilo: Hilo, house: House, reset: tuple[int, int]
) -> None:
    before, after = reset
    shown = hilo("users", "show", ANA, "--as-of", before, "--json").json
    assert (shown["thread"]["id"], shown["thread"]["tokens"]) == ("conv_5678", 1_234)
    assert shown["position"] == before
    now = hilo("users", "show", ANA, "--json").json
    assert (now["thread"]["id"], now["position"]) == ("conv_new", after)
    event = house.log.event_at(house.log.head().position)
    assert event is not None
    at = hilo("users", "show", ANA, "--as-of", iso(event.recorded_at), "--json").json
    assert at["thread"]["id"] == "conv_new"
    a_moment_before = iso(event.recorded_at - 1)
    assert hilo("users", "show", ANA, "--as-of", a_moment_before, "--json").json == shown


def test_nobody_is_there_before_their_first_event(hilo: Hilo, house: House) -> None:
    for moment in ("0", "1"):
        ran = hilo("users", "show", BEN, "--as-of", moment)
        assert (ran.code, ran.out) == (1, "")
        assert f"{BEN} did not exist as of position {moment}: their first event is" in ran.err
    first = house.log.read_stream(house.stream(BEN), limit=1)[0].position
    assert f"at position {first}, of 20" in ran.err
    assert hilo("users", "show", BEN, "--as-of", first, "--json").json["version"] == 1


def test_a_snapshot_of_later_is_not_the_start_of_what_was_before(
    hilo: Hilo, house: House, reset: tuple[int, int]
) -> None:
    stream = house.stream(ANA)
    user = user_at(house.log, stream)
    head = house.log.head()
    house.log.append_batch(
        [], [Snapshot(stream, user.version, head.epoch, STATE_SHAPE, pack(user.state))]
    )
    shown = hilo("users", "show", ANA, "--as-of", reset[0], "--json").json
    assert shown["thread"]["id"] == "conv_5678"
    assert hilo("users", "show", ANA, "--json").json["thread"]["id"] == "conv_new"


def test_the_difference_of_the_thread_map_names_fields_and_events(
    hilo: Hilo, house: House, reset: tuple[int, int]
) -> None:
    before, after = reset
    found = hilo("diff", before, "--json").json
    assert (found["since"], found["until"]) == (before, after)
    (ana,) = found["users"]
    assert ana["user"] == house.people[ANA]
    changed = {change["field"]: (change["before"], change["after"]) for change in ana["changes"]}
    assert changed["thread"] == ("conv_5678", "conv_new")
    assert changed["tokens"] == (1_234, 0)
    assert changed["left_behind"] == (0, 1_234)
    assert [event["type"] for event in ana["events"]] == ["ThreadReset", "ThreadStarted"]


def test_the_difference_for_one_user_covers_everything_decided_upon(
    hilo: Hilo, house: House
) -> None:
    before = house.log.head().position
    house.write(BEN, "are you there now?")
    ran = hilo("diff", before, "--user", BEN)
    assert ran.code == 0
    assert "waiting" in ran.out
    assert "the person sent a text" in ran.out
    opened = hilo("diff", before, "--user", BEN, "--open")
    assert "are you there now?" in opened.out
    assert "are you there now?" not in ran.out


def test_the_difference_opens_what_the_state_keeps_sealed(hilo: Hilo, house: House) -> None:
    shown = e.Profile(name="Ana María", labels=("vip", "late"))
    sealed = house.sealer.seal(house.people[ANA], house.stream(ANA), "profile", shown)
    house.append(ANA, e.ProfileUpdated(profile=sealed))
    chat = f"{ANA}@s.whatsapp.net"
    question = ("diff", 0, "--user", ANA)
    opened = hilo(*question, "--open", "--json").json["users"][0]["changes"]
    after = {change["field"]: change["after"] for change in opened}
    assert after["contact.chat"] == chat
    assert (after["profile.name"], after["profile.labels"]) == ("Ana María", "vip, late")
    table = hilo(*question, "--open").out
    assert f" {chat}\n" in table
    assert "«sealed»" not in table
    closed = hilo(*question, "--json").json["users"][0]["changes"]
    assert {"field": "contact.chat", "before": None, "after": "«sealed»"} in closed
    for secret in (chat, "Ana María", "vip"):
        assert secret not in hilo(*question).out + str(closed)


def test_what_never_was_is_not_shown_as_a_number(hilo: Hilo, house: House) -> None:
    lines = hilo("diff", 0, "--user", ANA).out.splitlines()
    rows = {words[0]: words[1:] for words in map(str.split, lines) if len(words) > 2}
    for field in ("activity_at", "touched_at"):
        before, day, _ = rows[field]
        assert (before, day[:3]) == ("–", "202")


def test_what_happened_to_others_is_not_in_it(hilo: Hilo, house: House) -> None:
    before = house.log.head().position
    house.write(BEN, "hello")
    found = hilo("diff", before, "--json").json
    assert [one["user"] for one in found["users"]] == [house.people[BEN]]
    nothing = hilo("diff", house.log.head().position)
    assert "nothing changed" in nothing.err


@pytest.mark.parametrize(
    ("moment", "says"),
    [
        ("2026-11-20T14:00:00", "has no zone"),
        ("yesterday", "neither a position nor a time"),
        ("999999", "the log ends at position"),
        ("2100-01-01T00:00:00Z", "can still change"),
    ],
)
def test_a_moment_that_is_unclear_or_not_past_is_refused_with_what_to_do(
    hilo: Hilo, house: House, moment: str, says: str
) -> None:
    for command in (("users", "show", ANA, "--as-of", moment), ("diff", moment)):
        ran = hilo(*command)
        assert ran.code == 2
        assert says in ran.err


def test_a_moment_inside_an_append_is_refused_and_names_both_neighbours(
    hilo: Hilo, house: House, reset: tuple[int, int]
) -> None:
    before, after = reset
    ran = hilo("users", "show", ANA, "--as-of", before + 1)
    assert ran.code == 2
    assert f"Give {before} or {after}" in ran.err


def test_the_wrong_way_round_is_refused(hilo: Hilo, house: House) -> None:
    ran = hilo("diff", house.log.head().position, 0)
    assert (ran.code, "swap them" in ran.err) == (2, True)
