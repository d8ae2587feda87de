"""Files that were read become events: decided, keyed, appended beside a running server.

Everything has a key, or is compared with what the log says, so that a second import of the same
file, or of a longer export of the same chat, appends only what is new. What is appended for one
person stays together as far as appends allow; a kill in between loses nothing that was counted,
and the same command goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, Literal, Protocol, TypeVar

import msgspec

from app.aggregates.answers import Done
from app.aggregates.events import Content, Media, Profile
from app.aggregates.user import User
from app.conversation.facts import Person
from app.conversation.identities import handles_of, user_stream
from app.importing.records import ChatFile, ChatLine, ClientEntry, ClientFile
from eventstore.errors import DuplicateKey
from eventstore.keyring import Keyring
from eventstore.sealing import Sealed, Sealer
from eventstore.store import LogReader
from eventstore.types import IdempotencyKey, Micros, StreamName

T = TypeVar("T")


class Decide(Protocol):
    """Makes durable what a command decides upon a stream, and returns its answer."""

    def __call__(self, stream: StreamName, command: Callable[[User, Micros], T], /) -> T:
        """Raises `DuplicateKey` if a key is in the log already."""


Look = Callable[[StreamName], User]
"""Gives a user as the log tells it now."""


def _untold(_done: int, _total: int) -> None:
    """Tell nobody."""


GATEWAY: Final = "whapi"
AT_ONCE: Final = 200
"""Messages of one append; an append of the log holds at most 1,000 events."""

Side = Literal["them", "us", "system"]


class Counts(msgspec.Struct):
    """What an import did, or would do, in numbers of people and messages."""

    people: int = 0
    """People the log did not know."""
    threads: int = 0
    profiles: int = 0
    activities: int = 0
    messages: int = 0
    known: int = 0
    """Messages and people of whom the log knew everything already."""


class Importer:
    """Brings files into one bot's log. Belongs to one thread."""

    def __init__(  # noqa: PLR0913 - the parts of one import
        self,
        *,
        log: LogReader,
        keyring: Keyring,
        sealer: Sealer,
        decide: Decide,
        look: Look,
        dry: bool = False,
        told: Callable[[int, int], None] = _untold,
    ) -> None:
        """Take the parts. `dry` counts what would be done and writes nothing, keys included.

        `told(done, total)` is called now and then with people or messages of the file in hand.
        """
        self._log = log
        self._keyring = keyring
        self._sealer = sealer
        self._decide = decide
        self._look = look
        self._dry = dry
        self._told = told
        self._met: set[str] = set()
        self.counts = Counts()

    def clients(self, file: ClientFile) -> None:
        """Import a thread file or a guest memory: who it is, name and labels, thread, activity."""
        for done, entry in enumerate(file.entries):
            self._told(done, len(file.entries))
            self._client(entry, entry.last_activity or file.taken_at)

    def chat(self, file: ChatFile, person: Person, *, us: str | None) -> None:
        """Import an export of the chat with `person`; `us` is the author who is the business.

        Nothing of it is ever answered.
        """
        stream, owner = self._stream(person)
        keyed = list(self._keyed(file.lines, person, us))
        new = [row for row in keyed if self._log.event_by_key(row[0]) is None]
        self.counts.known += len(keyed) - len(new)
        rows = iter(new)
        done = len(keyed) - len(new)
        while some := list(islice(rows, AT_ONCE)):
            self._told(done, len(keyed))
            self._messages(stream, owner, person, some)
            done += len(some)

    def _client(self, entry: ClientEntry, seen_at: int | None) -> None:
        """Import one person, of whom the file tells what was at `seen_at`, if it says when."""
        stream, owner = self._stream(entry.person)
        as_of = seen_at or entry.created_at or 0

        def command(user: User, now: Micros) -> list[str]:
            changed = []
            self._register(user, owner, entry.chat, now)
            profile = self._profile(user, entry, owner, as_of)
            if profile is not None:
                sealed = self._seal(owner, stream, "profile", profile)
                if isinstance(user.import_profile(sealed, as_of=Micros(as_of), now=now), Done):
                    changed.append("profiles")
            if entry.thread:
                begun = Micros(entry.created_at or as_of or now)
                linked = user.import_thread(entry.thread, as_of=Micros(as_of), at=begun, now=now)
                if isinstance(linked, Done):
                    changed.append("threads")
            active_at = seen_at or (as_of if "threads" in changed else 0)  # who began one was there
            if active_at:
                moved = user.import_activity(as_of=Micros(active_at), now=now)
                changed += ["activities"] if isinstance(moved, Done) else []
            return changed

        changed = self._do(stream, command)
        self.counts.known += not changed
        for name in changed:
            setattr(self.counts, name, getattr(self.counts, name) + 1)

    def _messages(
        self,
        stream: StreamName,
        owner: str,
        person: Person,
        rows: Sequence[tuple[IdempotencyKey, Side, ChatLine]],
    ) -> None:
        chat = _chat_id(person)

        def command(user: User, now: Micros) -> int:
            self._register(user, owner, chat, now)
            for key, side, line in rows:
                content = self._seal(owner, stream, "content", _content(line, chat))
                user.import_message(
                    key,
                    line.kind,
                    content,
                    sender="business" if side == "us" else "person",
                    at=Micros(line.at),
                    now=now,
                )
            return len(rows)

        try:
            self.counts.messages += self._do(stream, command)
        except DuplicateKey:  # another import of the same chat is at work: what is left is less
            left = [row for row in rows if self._log.event_by_key(row[0]) is None]
            self.counts.known += len(rows) - len(left)
            if left:
                self._messages(stream, owner, person, left)

    def _keyed(
        self, lines: Sequence[ChatLine], person: Person, us: str | None
    ) -> Iterator[tuple[IdempotencyKey, Side, ChatLine]]:
        """Yield the lines with their keys.

        An export has no message ids: a line is known by who, when and what, and equal ones by
        their order. Names of authors are left out, since people rename each other.
        """
        handle = handles_of(person)[0]
        seen: Counter[tuple[Side, int, str, str, str]] = Counter()
        for line in lines:
            side: Side = "us" if line.author and line.author == us else "them"
            if line.kind == "system":
                side = "system"
            what = (side, line.at, line.kind, line.text, line.file_name)
            seen[what] += 1
            key = self._keyring.fingerprint(
                "import", handle.kind, handle.value, *map(str, what), str(seen[what])
            )
            yield key, side, line

    def _stream(self, person: Person) -> tuple[StreamName, str]:
        """Return the person's stream and pseudonym, registered by now unless this run is dry."""
        handles = handles_of(person)
        owner = self._keyring.find(handles)
        if owner is None:
            owner = f"dry-{handles[0].value}" if self._dry else self._keyring.register([handles])[0]
        elif not self._dry:
            self._keyring.ensure_keys([owner])
        stream = user_stream(owner)
        if owner not in self._met and self._log.stream_version(stream) == 0:
            self.counts.people += 1
        self._met.add(owner)
        return stream, owner

    def _register(self, user: User, owner: str, chat: str, now: Micros) -> None:
        if user.state.contact is None:
            user.register(GATEWAY, self._seal(owner, user.stream, "chat", chat), now=now)

    def _profile(self, user: User, entry: ClientEntry, owner: str, as_of: int) -> Profile | None:
        """Return what the person's profile would be, None if it is that already.

        What people call themselves comes with their messages: a file that knows of none that is
        newer has no news of it.
        """
        name, user_name = entry.name, None
        if user.is_news(as_of) or not user.state.activity_at:
            user_name = entry.user_name
        if name is None and user_name is None and entry.labels is None:
            return None
        known, sealed = Profile(), user.state.profile
        if sealed is not None:
            known = self._sealer.open(owner, user.stream, "profile", sealed, Profile)
        profile = Profile(
            name=known.name if name is None else name,
            labels=known.labels if entry.labels is None else entry.labels,
            user_name=known.user_name if user_name is None else user_name,
        )
        return None if sealed is not None and profile == known else profile

    def _seal(self, owner: str, stream: StreamName, field: str, value: T) -> Sealed[T]:
        if self._dry:
            return Sealed(0, b"", b"")
        return self._sealer.seal(owner, stream, field, value)

    def _do(self, stream: StreamName, command: Callable[[User, Micros], T]) -> T:
        if self._dry:
            return command(self._look(stream), self._log.now())
        return self._decide(stream, command)


def _chat_id(person: Person) -> str:
    return f"{person.phone}@s.whatsapp.net" if person.phone else f"{person.lid}@lid"


def _content(line: ChatLine, chat: str) -> Content:
    media = Media(id="", file_name=line.file_name) if line.file_name else None
    return Content(message_id="", chat_id=chat, text=line.text, name=line.author, media=media)
