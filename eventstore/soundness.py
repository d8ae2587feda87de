"""What an append must be whatever the log holds: the same on every store.

A log can move to the other store, so each limit is that of the narrower one: PostgreSQL keeps no
zero character in a text, indexes at most 2,704 bytes, and takes a statement of 1 GB at most.
"""

from __future__ import annotations

from typing import Final

from eventstore.types import MAX_EVENTS_PER_APPEND, MAX_STATE_BYTES, Append, NewEvent

MAX_APPEND_BYTES: Final = 64 * 1024 * 1024
MAX_NAME_BYTES: Final = 1000
_ID_BYTES: Final = 16


def fault(append: Append) -> str | None:
    """Say what is wrong with the append itself; None if nothing is."""
    if not 0 < len(append.events) <= MAX_EVENTS_PER_APPEND:
        return f"an append holds 1 to {MAX_EVENTS_PER_APPEND} events, not {len(append.events)}"
    if len(append.append_id) != _ID_BYTES or not _is_name(append.stream):
        return (
            f"an append has an id of {_ID_BYTES} bytes and names its stream in 1 to "
            f"{MAX_NAME_BYTES} bytes of text"
        )
    keys = size = 0
    for event in append.events:
        wrong = _event_fault(event)
        if wrong is not None:
            return wrong
        size += len(event.state)
        keys += event.key is not None
    if size > MAX_APPEND_BYTES:
        return f"the states take {size} bytes together: the limit is {MAX_APPEND_BYTES}"
    if keys > 1 and len({event.key for event in append.events} - {None}) < keys:
        return "two events of one append have the same key"
    return None


def _event_fault(event: NewEvent) -> str | None:
    if len(event.state) > MAX_STATE_BYTES:
        return f"a state of {len(event.state)} bytes is over the limit of {MAX_STATE_BYTES}"
    if not _is_name(event.type):
        return f"an event has a type of 1 to {MAX_NAME_BYTES} bytes of text"
    if event.key is not None and len(event.key) > MAX_NAME_BYTES:
        return f"a key of {len(event.key)} bytes is over the limit of {MAX_NAME_BYTES}"
    return None


def _is_name(text: str) -> bool:
    if text.isascii():
        return 0 < len(text) <= MAX_NAME_BYTES and "\0" not in text
    try:
        return len(text.encode()) <= MAX_NAME_BYTES and "\0" not in text
    except UnicodeEncodeError:  # a lone surrogate, which JSON can carry and no database can
        return False
