"""The leaf hash of an event never changes, and no two events share one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eventstore.integrity import leaf_hash
from eventstore.types import (
    AppendId,
    IdempotencyKey,
    Micros,
    Position,
    Recorded,
    StreamName,
    Version,
)

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "golden" / "leaves.json").read_text(encoding="utf-8")
)


def recorded(vector: dict[str, Any]) -> Recorded:
    key = vector["key"]
    return Recorded(
        vector["position"],
        vector["stream"],
        vector["version"],
        vector["type"],
        vector["recorded_at"],
        None if key is None else IdempotencyKey(bytes.fromhex(key)),
        AppendId(bytes.fromhex(vector["append_id"])),
        bytes.fromhex(vector["state"]),
    )


@pytest.mark.parametrize("vector", GOLDEN, ids=lambda vector: vector["what"])
def test_a_leaf_is_what_it_was_when_the_vectors_were_written(vector: dict[str, Any]) -> None:
    assert leaf_hash(recorded(vector)).hex() == vector["leaf"]


def test_no_key_and_an_empty_key_are_different_events() -> None:
    absent, empty, present = GOLDEN[:3]
    assert (absent["key"], empty["key"]) == (None, "")
    assert len({absent["leaf"], empty["leaf"], present["leaf"]}) == 3


positions = st.integers(0, 2**63 - 1)
events = st.builds(
    Recorded,
    position=positions.map(Position),
    stream=st.text(max_size=6).map(StreamName),
    version=positions.map(Version),
    type=st.text(max_size=6),
    recorded_at=st.integers(-(2**63), 2**63 - 1).map(Micros),
    key=st.none() | st.binary(max_size=4).map(IdempotencyKey),
    append_id=st.binary(max_size=4).map(AppendId),
    state=st.binary(max_size=6),
)


@given(one=events, other=events, field=st.sampled_from(Recorded.__struct_fields__))
def test_a_change_of_any_one_field_changes_the_leaf(
    one: Recorded, other: Recorded, field: str
) -> None:
    changed = msgspec.structs.replace(one, **{field: getattr(other, field)})
    assume(changed != one)
    assert leaf_hash(changed) != leaf_hash(one)


@given(event=events, text=st.text(min_size=1, max_size=4))
def test_bytes_cannot_be_moved_from_one_field_to_its_neighbour(event: Recorded, text: str) -> None:
    moved = text.encode()
    pairs = [
        (
            msgspec.structs.replace(event, stream=StreamName(event.stream + text)),
            msgspec.structs.replace(event, type=text + event.type),
        ),
        (
            msgspec.structs.replace(event, append_id=AppendId(event.append_id + moved)),
            msgspec.structs.replace(event, state=moved + event.state),
        ),
    ]
    for one, other in pairs:
        assert leaf_hash(one) != leaf_hash(other)
