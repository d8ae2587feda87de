"""What belongs to no single person is kept, counted, and bounded."""

from __future__ import annotations

import hashlib

from app.aggregates import Done, Gateway, Nothing
from app.aggregates import gateway_events as e
from app.aggregates.gateway import (
    _EVOLVE,
    BLANK,
    MAX_KINDS,
    MAX_ON_SHELF,
    MORE,
    REJECTED,
    SHELVES,
    GatewayState,
    evolve,
    pack,
    unpack,
)
from eventstore.codec import Event, stored_name
from tests.unit.aggregates.scenario import key, sealed


def after(*events: Event) -> GatewayState:
    state = BLANK
    for version, event in enumerate(events, 1):
        state = evolve(state, event, version, 0)
    return state


def ref(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4)).digest()[:16]


def test_every_event_of_the_gateway_has_its_rule() -> None:
    assert set(_EVOLVE) == set(e.GATEWAY_EVENTS)
    assert stored_name(e.ItemRejected) == "WebhookItemRejected"


def test_an_unknown_item_is_kept_and_counted_by_kind() -> None:
    gateway = Gateway()
    answer = gateway.record_other(kind="polls.post", body=sealed(), key=key("k"))
    assert answer == Done(1)
    gateway.record_other(kind="polls.post", body=sealed())
    gateway.reject_item(reason="no id", body=sealed())
    assert gateway.collect_events() == [
        (e.OtherRecorded(kind="polls.post", body=sealed()), key("k")),
        (e.OtherRecorded(kind="polls.post", body=sealed()), None),
        (e.ItemRejected(reason="no id", body=sealed()), None),
    ]
    assert gateway.state.counts == {"polls.post": 2, REJECTED: 1}


def test_only_so_many_kinds_are_counted_by_name() -> None:
    events = [e.OtherRecorded(kind=f"kind{n}", body=sealed()) for n in range(MAX_KINDS + 20)]
    counts = after(*events, events[0]).counts
    assert len(counts) == MAX_KINDS + 1
    assert counts[MORE] == 20
    assert counts["kind0"] == 2


def test_a_delete_that_comes_first_is_remembered_until_it_is_applied() -> None:
    gateway = Gateway()
    assert not gateway.is_early(ref(1))
    assert gateway.apply_early_delete(ref(1)) == Nothing()
    assert gateway.remember_early_delete(ref(1)) == Done(1)
    assert gateway.remember_early_delete(ref(1)) == Nothing()
    assert gateway.is_early(ref(1))
    assert gateway.apply_early_delete(ref(1)) == Done(2)
    assert not gateway.is_early(ref(1))
    assert [event for event, _ in gateway.collect_events()] == [
        e.EarlyDelete(ref=ref(1)),
        e.EarlyDeleteApplied(ref=ref(1)),
    ]


def test_early_deletes_are_bounded_and_the_oldest_go_first() -> None:
    most = SHELVES * MAX_ON_SHELF
    state = after(*[e.EarlyDelete(ref=ref(n)) for n in range(3 * most)])
    kept = sum(map(len, state.early))
    assert kept == most
    gateway = Gateway(state=state)
    assert all(gateway.is_early(ref(n)) for n in range(3 * most - 1000, 3 * most))
    assert not any(gateway.is_early(ref(n)) for n in range(1000))


def test_an_early_delete_seen_again_is_as_good_as_new() -> None:
    same_shelf = [bytes([0, 0, 0, 0, n]).ljust(16, b"\0") for n in range(MAX_ON_SHELF)]
    events = [e.EarlyDelete(ref=r) for r in (*same_shelf, same_shelf[0], b"\0" * 15 + b"x")]
    gateway = Gateway(state=after(*events))
    assert gateway.is_early(same_shelf[0])
    assert not gateway.is_early(same_shelf[1])


def test_a_snapshot_of_the_gateway_gives_the_same_state() -> None:
    state = after(e.EarlyDelete(ref=ref(1)), e.OtherRecorded(kind="k", body=sealed()))
    assert unpack(pack(state)) == state
