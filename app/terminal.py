"""The terminal of a chat: what a person reads there, and what they type."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Final

_SHOWN_BEFORE: Final = 10
_STDIN: Final = 0
_TYPING: Final = {"typing": "escribiendo…", "recording": "grabando audio…"}
_CLEAR_LINE: Final = "\r\x1b[K"


class Screen:
    """What the terminal shows; in a pipe, the answers and nothing else."""

    def __init__(self, interactive: bool) -> None:  # noqa: FBT001 - what it is, not what to do
        self.interactive = interactive

    def greet(self, url: str, phone: str, said_before: Sequence[tuple[str, str]]) -> None:
        """Say who talks to whom, and what was said last: authors and texts."""
        if not self.interactive:
            return
        self._put(f"You are {phone}, the bot is at {url}. Ctrl-D ends the chat.\n")
        if len(said_before) > _SHOWN_BEFORE:
            self._put(f"({len(said_before) - _SHOWN_BEFORE} older messages)\n")
        for author, text in said_before[-_SHOWN_BEFORE:]:
            self._put(f"{author}: {_clean(text)}\n")
        self.prompt()

    def prompt(self) -> None:
        """Ask for the next message."""
        if self.interactive:
            self._put("> ")

    def message(self, author: str, text: str) -> None:
        """Show a message of the bot, or of a human agent."""
        clean = _clean(text)
        if not self.interactive:
            self._put(f"{clean}\n")
            return
        self._put(f"{_CLEAR_LINE}{author}: {clean}\n")
        self.prompt()

    def remark(self, text: str) -> None:
        """Say something about the chat itself."""
        if self.interactive:
            self._put(f"{_CLEAR_LINE}({text})\n")
            self.prompt()

    def end(self) -> None:
        """Leave the terminal at the beginning of a line."""
        if self.interactive:
            self._put(_CLEAR_LINE)

    def presence(self, presence: str | None) -> None:
        """Show that the bot is writing, or that it has stopped."""
        if self.interactive:
            self._put(_CLEAR_LINE + (_TYPING.get(presence or "", "") or "> "))

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _clean(text: str) -> str:
    """Return a text without characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


class Typed:
    """The lines of standard input, whatever it is."""

    def __init__(self, ends: int) -> None:
        """Read until it has ended so often: a terminal goes on after each Ctrl-D."""
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._ends = ends
        threading.Thread(target=self._read, daemon=True, name="hilo-typed").start()

    async def until_end(self) -> AsyncIterator[str]:
        """Yield the lines up to the next end."""
        while (line := await self._lines.get()) is not None:
            yield line

    def _read(self) -> None:
        for _ in range(self._ends):
            if not self._read_to_end():
                return

    def _read_to_end(self) -> bool:
        """Hand over what comes before the next end; return if anybody still wants more."""
        # os.read, not sys.stdin: a thread that blocks in a buffered reader holds its lock at exit.
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""
        with contextlib.suppress(OSError):  # a terminal that was closed has ended, too
            while chunk := os.read(_STDIN, 65_536):
                *whole, rest = (rest + decoder.decode(chunk)).split("\n")
                if not all(map(self._hand_over, whole)):
                    return False
        if rest and not self._hand_over(rest):
            return False
        return self._hand_over(None)

    def _hand_over(self, line: str | None) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)
        except RuntimeError:  # the chat is over
            return False
        return True
