"""Recorded events as people read them: one line each, in words or as `name=value …`."""

from __future__ import annotations

import re
from typing import Final

from app.cli.output import safe
from app.cli.wording import worded
from app.projections.presenting import Presenter as JsonPresenter
from app.projections.presenting import plain, veiled
from eventstore.types import Recorded

__all__ = ["Presenter", "plain"]

_SHORT_BYTES: Final = 4
_PLAIN: Final = re.compile(r"[\w.:/@+-]+")


class Presenter(JsonPresenter):
    """Turns recorded events into JSON values and into lines. Without a sealer nothing is opened."""

    def as_words(self, event: Recorded) -> str:
        """Return what an event says to a person, on one line; `as_text` if it has no words."""
        state, unknown = self.state_of(event)
        words = None if unknown else worded(event.type.partition("@")[0], state)
        return self.as_text(event) if words is None else words

    def as_text(self, event: Recorded) -> str:
        """Return what an event says on one line: `name=value …`, empty fields left out."""
        state, unknown = self.state_of(event)
        words = [
            f"{name}={_word(value)}" for name, value in state.items() if value not in (None, "", {})
        ]
        return " ".join((["(newer release)"] if unknown else []) + words)


def _word(value: object) -> str:
    hidden = veiled(value)
    if hidden is not None:
        return hidden
    match value:
        case bytes():
            return value[:_SHORT_BYTES].hex() + "…"
        case dict():
            inner = (f"{k}: {_word(v)}" for k, v in value.items() if v not in (None, "", b"", []))
            return "{" + ", ".join(inner) + "}"
        case list():
            return "[" + ", ".join(map(_word, value)) + "]"
        case str():
            return value if _PLAIN.fullmatch(value) else f'"{safe(value)}"'
        case _:
            return str(value).lower() if isinstance(value, bool) else str(value)
