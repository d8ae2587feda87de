"""What earlier releases wrote decodes for ever to the same values."""

from __future__ import annotations

import msgspec
import pytest

from app.aggregates.access_events import ACCESS_EVENTS
from app.aggregates.cleanup_events import CLEANUP_EVENTS
from app.aggregates.control_events import CONTROL_EVENTS
from app.aggregates.events import USER_EVENTS
from app.aggregates.gateway_events import GATEWAY_EVENTS
from app.aggregates.job_events import JOB_EVENTS
from eventstore.codec import Codec, Event
from tests.golden import samples
from tests.golden.generate import FILES, FOLDER, GoldenExists, extended, read

CLASSES = (
    *USER_EVENTS,
    *GATEWAY_EVENTS,
    *JOB_EVENTS,
    *CONTROL_EVENTS,
    *CLEANUP_EVENTS,
    *ACCESS_EVENTS,
)
CODEC = Codec(CLASSES)
SAMPLES: dict[str, dict[str, Event]] = {
    **samples.USER,
    **samples.GATEWAY,
    **samples.JOBS,
    **samples.CONTROL,
    **samples.CLEANUP,
    **samples.ACCESS,
}
KINDS = ("user", "gateway", "job", "control", "cleanup", "access")
EVENTS = [
    (name, sample, bytes.fromhex(state))
    for file in (f"{kind}_events.json" for kind in KINDS)
    for name, entries in read(FOLDER / file).items()
    for sample, state in entries.items()
]
VALUES = [
    (name, sample, bytes.fromhex(state))
    for name, entries in read(FOLDER / "values.json").items()
    for sample, state in entries.items()
]


@pytest.mark.parametrize(("name", "sample", "state"), EVENTS)
def test_an_event_decodes_to_what_it_was(name: str, sample: str, state: bytes) -> None:
    event = CODEC.decode(name, state)
    assert event == SAMPLES[name][sample]
    new = CODEC.encode(event)
    if new.type == name:  # the current schema: written as it always was
        assert new.state == state


@pytest.mark.parametrize(("name", "sample", "state"), VALUES)
def test_a_value_inside_an_event_decodes_to_what_it_was(
    name: str, sample: str, state: bytes
) -> None:
    value = samples.VALUES[name][sample]
    assert msgspec.msgpack.decode(state, type=type(value)) == value
    assert msgspec.msgpack.encode(value) == state


def test_every_stored_name_has_golden_bytes() -> None:
    names = CODEC.stored_names(CLASSES)
    assert {name for name, _, _ in EVENTS} == set(names)


@pytest.mark.parametrize("file", FILES)
def test_every_sample_is_golden_and_nothing_golden_was_removed(file: str) -> None:
    golden, wanted = read(FOLDER / file), FILES[file]
    assert {(n, s) for n in golden for s in golden[n]} == {
        (n, s) for n in wanted for s in wanted[n]
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_wire_names_are_short_and_differ(cls: type[Event]) -> None:
    names = [field.encode_name for field in msgspec.structs.fields(cls)]
    assert max(map(len, names)) <= 3
    assert len(set(names)) == len(names)


def test_a_sample_carries_every_field_of_its_event() -> None:
    for name, entries in SAMPLES.items():
        shown = {
            field
            for sample in entries.values()
            for field in msgspec.msgpack.decode(msgspec.msgpack.encode(sample))
        }
        own = {
            field.encode_name
            for field in msgspec.structs.fields(next(iter(entries.values())))
            if field.name not in {"at", "cor", "cau"}
        }
        assert own <= shown, name


def test_golden_bytes_are_never_written_again() -> None:
    wanted = {"Reply": {"full": samples.VALUES["Reply"]["full"]}}
    once = extended({}, wanted)
    assert extended(once, wanted) == once
    with pytest.raises(GoldenExists, match="Reply/full"):
        extended(once, {"Reply": {"full": samples.VALUES["Reply"]["least"]}})
    assert extended(once, {}) == once
