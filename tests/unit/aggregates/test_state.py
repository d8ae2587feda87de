"""A state is kept in snapshots and dropped when its shape changes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from app.aggregates import events as e
from app.aggregates import gateway, pack, unpack
from app.aggregates.shape import shape_of
from app.aggregates.user_state import _EVOLVE, BLANK, STATE_SHAPE
from tests.unit.aggregates.scenario import (
    Given,
    message,
    part_started,
    registered,
    run_completed,
    run_started,
    sealed,
    tokens,
)


def test_every_event_of_a_user_changes_the_state_by_its_own_rule() -> None:
    assert set(_EVOLVE) == set(e.USER_EVENTS)


def test_a_snapshot_gives_the_same_state() -> None:
    state = Given(
        registered(),
        e.ProfileUpdated(profile=sealed()),
        e.ThreadStarted(thread="conv_1", reason="first_time"),
        e.MessageEdited(ref=b"r" * 16, content=sealed(), early=True),
        message(1),
        run_started("r1", 5),
        run_completed("r1", 2),
        tokens(7),
        part_started("r1"),
        e.MessageStatusChanged(ref=b"s" * 16, status="sent"),
        message(2),
    ).state
    assert unpack(pack(state)) == state
    assert unpack(pack(BLANK)) == BLANK


class Inner(msgspec.Struct):
    number: int


class Outer(msgspec.Struct):
    inner: tuple[Inner, ...]
    names: dict[str, int]
    kind: str | None = None


def renamed() -> type[msgspec.Struct]:
    """`Outer` with another name for the number inside."""
    inner = msgspec.defstruct("Inner", [("amount", int)])
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        ("inner", tuple[inner, ...]),  # type: ignore[valid-type]
        ("names", dict[str, int]),
        ("kind", str | None, None),
    ]
    return msgspec.defstruct("Outer", fields)


def test_the_shape_changes_with_a_field_deep_inside_or_with_the_rules() -> None:
    assert shape_of(Outer, 1) != shape_of(renamed(), 1)
    assert shape_of(Outer, 1) != shape_of(Outer, 2)
    assert len({STATE_SHAPE, gateway.STATE_SHAPE}) == 2


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_shape_is_the_same_in_every_process(seed: str) -> None:
    code = "from app.aggregates.user_state import STATE_SHAPE; print(STATE_SHAPE.hex())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == STATE_SHAPE.hex()
