"""Each promise of the demo can be broken, and the judge then says so, and names it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from app.demo.accounts import Response, Usage, Webhooks
from app.demo.judge import Evidence, judge, log_faults, readable, rebuild_differences
from app.demo.traffic import SENTENCES, SURNAMES
from eventstore.types import AppendId, Micros, Position, Recorded, Version
from tests.integration.demo.honest import (
    USAGE,
    VIEWS,
    a_message,
    honest,
    log_of,
    with_reply,
    without_replies_to,
)


def test_nothing_is_said_against_a_demo_that_went_well() -> None:
    verdict = judge(honest())
    assert verdict.broken == ()
    assert (verdict.lost, verdict.answered_twice, verdict.uncertain) == (0, 0, 0)
    assert verdict.rebuild_equal


# -- each of these breaks exactly the promise that it is listed under ------------------------------


def no_reply_on_the_phone(given: Evidence) -> Evidence:
    reference, _ = a_message(given.plan)
    return replace(given, whapi=without_replies_to(given.whapi, reference))


def no_response_behind_the_reply(given: Evidence) -> Evidence:
    reference, _ = a_message(given.plan)
    responses = tuple(
        replace(r, status="failed") if reference in r.input_texts[0] else r
        for r in given.openai.responses
    )
    return replace(given, openai=replace(given.openai, responses=responses))


def two_replies_to_one_message(given: Evidence) -> Evidence:
    reference, phone = a_message(given.plan)
    return replace(given, whapi=with_reply(given.whapi, phone, f"Otra vez: {reference}"))


def a_part_shown_twice(given: Evidence) -> Evidence:
    phone = a_message(given.plan)[1]
    body = given.whapi.by_phone()[phone][0]
    return replace(given, whapi=with_reply(given.whapi, phone, body))


def a_reply_on_somebody_elses_phone(given: Evidence) -> Evidence:
    reference, phone = a_message(given.plan)
    other = next(p for p in given.plan.expecting("answer").values() if p != phone)
    return replace(given, whapi=with_reply(given.whapi, other, f"Eco: {reference}"))


def noise_given_to_the_model(given: Evidence) -> Evidence:
    noise = next(iter(given.plan.expecting("silence")))
    first, *others = given.openai.responses
    first = replace(first, input_texts=(*first.input_texts, noise))
    return replace(given, openai=replace(given.openai, responses=(first, *others)))


def webhooks_that_wait(given: Evidence) -> Evidence:
    return replace(given, whapi=replace(given.whapi, webhooks=Webhooks(pending=3)))


def webhooks_given_up(given: Evidence) -> Evidence:
    return replace(given, whapi=replace(given.whapi, webhooks=Webhooks(dropped=1)))


def tokens_not_recorded(given: Evidence) -> Evidence:
    del given.ledger.recorded["run_0"]
    return given


def tokens_recorded_twice(given: Evidence) -> Evidence:
    given.ledger.recorded["run_0"] = USAGE.plus(USAGE)
    return given


def tokens_in_the_wrong_place(given: Evidence) -> Evidence:
    given.ledger.recorded["run_0"] = Usage(total_tokens=30, input_tokens=10, output_tokens=20)
    return given


def tokens_never_reported(given: Evidence) -> Evidence:
    given.ledger.recorded["run_of_nobody"] = USAGE
    return given


def tokens_recorded_and_unknown(given: Evidence) -> Evidence:
    given.ledger.unknown.add("run_0")
    return given


def a_response_that_no_run_asked_for(given: Evidence) -> Evidence:
    stray = Response("resp_x", "completed", (), USAGE)
    openai = replace(
        given.openai,
        responses=(*given.openai.responses, stray),
        reported=given.openai.reported.plus(USAGE),
    )
    return replace(given, openai=openai)


def a_sum_that_the_lines_do_not_make(given: Evidence) -> Evidence:
    openai = replace(given.openai, reported=given.openai.reported.plus(USAGE))
    return replace(given, openai=openai)


def a_faulty_log(given: Evidence) -> Evidence:
    return replace(given, log_faults=("position 9 follows 7",))


def a_readable_name(given: Evidence) -> Evidence:
    return replace(given, readable=("views.db shows 'Ficticia'",))


def other_rows_after_the_rebuild(given: Evidence) -> Evidence:
    return replace(given, rebuilt={**VIEWS, "threads": [("ana", 1), ("ben", 3)]})


def a_server_that_had_to_be_killed(given: Evidence) -> Evidence:
    return replace(given, exits=("SIGTERM ended it with exit code -9",))


BREAKS: dict[Callable[[Evidence], Evidence], str] = {
    no_reply_on_the_phone: "no acknowledged message is lost",
    no_response_behind_the_reply: "no acknowledged message is lost",
    two_replies_to_one_message: "no message is answered twice",
    a_part_shown_twice: "no message is answered twice",
    a_reply_on_somebody_elses_phone: "nobody reads an answer that is not theirs",
    noise_given_to_the_model: "what is not for the bot is not answered",
    webhooks_that_wait: "every webhook was acknowledged",
    webhooks_given_up: "every webhook was acknowledged",
    tokens_not_recorded: "every token OpenAI reports is accounted for",
    tokens_recorded_twice: "every token OpenAI reports is accounted for",
    tokens_in_the_wrong_place: "every token OpenAI reports is accounted for",
    tokens_never_reported: "every token OpenAI reports is accounted for",
    tokens_recorded_and_unknown: "every token OpenAI reports is accounted for",
    a_response_that_no_run_asked_for: "every token OpenAI reports is accounted for",
    a_sum_that_the_lines_do_not_make: "every token OpenAI reports is accounted for",
    a_faulty_log: "the log is gapless and in order",
    a_readable_name: "personal data is not readable on disk",
    other_rows_after_the_rebuild: "the read models can be rebuilt from the log",
    a_server_that_had_to_be_killed: "the server stops in good order",
}


@pytest.mark.parametrize("breaking", BREAKS, ids=lambda breaking: breaking.__name__)
def test_a_broken_promise_is_named(breaking: Callable[[Evidence], Evidence]) -> None:
    verdict = judge(breaking(honest()))
    assert [promise.name for promise in verdict.broken] == [BREAKS[breaking]]


def test_every_promise_can_be_broken() -> None:
    assert {promise.name for promise in judge(honest()).promises} == set(BREAKS.values())


def test_lost_and_doubly_answered_messages_are_counted() -> None:
    assert judge(no_reply_on_the_phone(honest())).lost == 1
    assert judge(two_replies_to_one_message(honest())).answered_twice == 1
    assert not judge(other_rows_after_the_rebuild(honest())).rebuild_equal


# -- what is allowed -------------------------------------------------------------------------------


def test_tokens_of_an_unknown_run_make_up_the_difference() -> None:
    given = honest()
    del given.ledger.recorded["run_0"]
    given.ledger.unknown.add("run_0")
    assert judge(given).broken == ()


def test_a_part_that_the_log_calls_uncertain_is_counted_and_not_called_lost() -> None:
    given = no_reply_on_the_phone(honest())
    given.ledger.uncertain["run_0"] = 1
    verdict = judge(given)
    assert (verdict.lost, verdict.uncertain) == (0, 1)


def test_a_message_that_was_taken_back_may_be_answered_once() -> None:
    given = honest()
    reference, phone = next(iter(given.plan.expecting("maybe").items()))
    once = replace(given, whapi=with_reply(given.whapi, phone, f"Eco: {reference}"))
    assert judge(once).broken == ()
    twice = replace(once, whapi=with_reply(once.whapi, phone, f"De nuevo: {reference}"))
    assert judge(twice).answered_twice == 1


# -- the log ---------------------------------------------------------------------------------------


def test_a_log_in_order_has_no_faults() -> None:
    events = log_of(("user/a", 2), ("user/b", 1), ("user/a", 3))
    assert list(log_faults(events, head=6)) == []


@pytest.mark.parametrize(
    ("place", "changes", "told"),
    [
        (2, {"position": Position(7)}, "position 7 follows 2"),
        (2, {"version": Version(2)}, "user/b: version 2 follows 0"),
        (2, {"recorded_at": Micros(10)}, "recorded no later"),
        (1, {"recorded_at": Micros(11)}, "one append has two times"),
        (3, {"append_id": AppendId((1).to_bytes(16, "big"))}, "interrupted by another"),
    ],
)
def test_a_fault_in_the_log_is_found(place: int, changes: dict[str, int], told: str) -> None:
    events: list[Recorded] = log_of(("user/a", 2), ("user/b", 1), ("user/a", 1))
    events[place] = replace(events[place], **changes)
    assert any(told in fault for fault in log_faults(events, head=4))


def test_a_head_beyond_the_last_event_is_found() -> None:
    assert list(log_faults(log_of(("user/a", 1)), head=2)) == [
        "the head says 2, and the last event is at 1"
    ]


# -- the files and the views -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    ["ref-abcdefgh23", "15550200001", "Sim0000000001-00001c6f2a-sim.", SURNAMES[0], SENTENCES[0]],
)
def test_personal_data_in_raw_bytes_is_found(secret: str) -> None:
    content = b"\x00\x01SQLite" + secret.encode() + b"\xff15550100999"
    found = list(
        readable(content, phones=frozenset({"15550200001"}), words=(*SURNAMES, *SENTENCES))
    )
    assert len(found) == 1


def test_bytes_without_personal_data_are_left_alone() -> None:
    content = b"ref-short user/abcdefghij234567abcd 15550100999 run_0123456789ab"
    assert list(readable(content, phones=frozenset({"15550200001"}), words=SURNAMES)) == []


def test_differing_views_are_told_apart() -> None:
    fewer = {**VIEWS, "threads": [("ana", 1)]}
    other = {**VIEWS, "more": []}
    assert list(rebuild_differences({}, {})) == ["there are no read models"]
    assert list(rebuild_differences(VIEWS, fewer)) == ["threads: 2 rows live, 1 rebuilt"]
    assert list(rebuild_differences(VIEWS, other)) == ["more is only in the rebuilt views"]
    assert list(rebuild_differences(other, VIEWS)) == ["more is only in the live views"]
