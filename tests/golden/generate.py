"""Write the golden bytes of samples that have none yet: `python -m tests.golden.generate`.

What is in a golden file stays there: an entry is never written again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from eventstore.codec import Event, stored_name
from tests.golden import samples

FOLDER: Final = Path(__file__).parent
FILES: Final[dict[str, Mapping[str, Mapping[str, msgspec.Struct]]]] = {
    "user_events.json": samples.USER,
    "gateway_events.json": samples.GATEWAY,
    "job_events.json": samples.JOBS,
    "control_events.json": samples.CONTROL,
    "cleanup_events.json": samples.CLEANUP,
    "access_events.json": samples.ACCESS,
    "values.json": samples.VALUES,
}
Golden = dict[str, dict[str, str]]
"""Stored name → name of the sample → its bytes in hex."""


class GoldenExists(Exception):
    """The sample has golden bytes already, and other ones: give the sample another name."""


def read(path: Path) -> Golden:
    """Return what a golden file holds; nothing if there is none."""
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=Golden)


def extended(golden: Golden, wanted: Mapping[str, Mapping[str, msgspec.Struct]]) -> Golden:
    """Return the golden bytes with those of new samples of current schemas.

    Raises `GoldenExists` if a sample would now be written in other bytes than it was.
    """
    result = {name: dict(entries) for name, entries in golden.items()}
    for name, values in wanted.items():
        entries = result.setdefault(name, {})
        for sample, value in values.items():
            if isinstance(value, Event) and stored_name(type(value)) != name:
                continue  # an older schema: nothing writes it any more
            state = msgspec.msgpack.encode(value).hex()
            if entries.setdefault(sample, state) != state:
                msg = f"{name}/{sample} is golden already and its bytes differ: name a new sample"
                raise GoldenExists(msg)
    return result


def main() -> None:
    """Add what is missing to every golden file."""
    for name, wanted in FILES.items():
        path = FOLDER / name
        golden = extended(read(path), wanted)
        path.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
