"""What the model is told, and how its answer is cut: nothing lost, nothing twice, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.aggregates import events as e
from app.aggregates import open_work as w
from app.aggregates.user_state import BLANK, UserState, evolve
from app.conversation.kinds import USER_CODEC
from app.conversation.texts import MAX_PART, read_texts, split_reply
from eventstore.codec import Event
from eventstore.errors import EventStoreError
from eventstore.keyring import Handle, KeyEncryptionKey, Keyring
from eventstore.sealing import Sealed, Sealer
from eventstore.sqlite import SQLiteLog, system_clock
from eventstore.types import Append, Epoch, StreamName, Version, new_append_id

SECOND = 1_000_000
NOON = 1_790_000_000 * SECOND


class Diary:
    """One person's stream, written event by event."""

    def __init__(self, folder: Path) -> None:
        kek = KeyEncryptionKey.from_file(folder / "kek")
        self.keyring = Keyring.open(folder / "keys.db", kek, clock=system_clock)
        self.owner = self.keyring.register([(Handle("phone", "15550109001"),)])[0]
        assert isinstance(self.owner, str)
        self.sealer = Sealer(self.keyring)
        self.log = SQLiteLog(folder / "log.db")
        self.stream = StreamName(f"user/{self.owner}")
        self.state: UserState = BLANK
        self.version = 0

    def write(self, *events: Event) -> None:
        for event in events:
            new = USER_CODEC.encode(event)
            append = Append(self.stream, Version(self.version), (new,), Epoch(1), new_append_id())
            (answer,) = self.log.append_batch([append])
            assert not isinstance(answer, EventStoreError)
            self.version += 1
            self.state = evolve(self.state, event, self.version, answer.recorded_at)

    def content(self, text: str) -> Sealed[e.Content]:
        content = e.Content(message_id="m", chat_id="c", text=text)
        return self.sealer.seal(self.owner, self.stream, "content", content)

    def said(
        self, text: str, *, at: int | None = None, kind: str = "text", answerable: bool = True
    ) -> e.MessageReceived:
        return e.MessageReceived(
            ref=ref(text), kind=kind, content=self.content(text), at=at, answerable=answerable
        )

    def edited(self, text: str, now: str, *, early: bool = False) -> e.MessageEdited:
        return e.MessageEdited(
            ref=ref(text), content=self.content(now), early=early, at=NOON + 9 * SECOND
        )

    def run(self) -> None:
        """Claim everything that waits."""
        run = e.RunStarted(
            run="r", node="n", incarnation="i", attempt=1, up_to=self.state.pending[-1].version
        )
        self.write(run)

    def complete(self) -> None:
        reply = self.sealer.seal(self.owner, self.stream, "reply", e.Reply(parts=("x",)))
        self.write(e.RunCompleted(run="r", response="x", reply=reply, parts=0))

    def texts(self) -> list[str]:
        return list(read_texts(self.log, self.sealer, self.stream, self.state.pending))

    def close(self) -> None:
        self.log.close()
        self.keyring.close()


def ref(text: str) -> bytes:
    """What stands for the id of the message that began as this text."""
    return text.encode().ljust(16, b".")


@pytest.fixture
def diary(tmp_path: Path) -> Iterator[Diary]:
    diary = Diary(tmp_path)
    yield diary
    diary.close()


def test_messages_are_said_in_the_order_of_their_sending(diary: Diary) -> None:
    diary.write(
        diary.said("third", at=NOON + 2 * SECOND),
        diary.said("first", at=NOON),
        diary.said("second", at=NOON),
    )
    assert diary.texts() == ["first", "second", "third"]


def test_an_edit_is_said_in_the_place_of_its_message(diary: Diary) -> None:
    diary.write(diary.said("a", at=NOON), diary.said("b", at=NOON + SECOND), diary.edited("a", "A"))
    assert diary.texts() == ["A", "b"]


def test_an_early_edit_is_said_as_the_kind_of_its_message(diary: Diary) -> None:
    diary.write(diary.edited("a", "A", early=True), diary.said("a", at=NOON, kind="image"))
    assert diary.texts() == ["[imagen] A"]


def test_what_has_no_text_is_named(diary: Diary) -> None:
    diary.write(diary.said("", kind="voice"), diary.said("", kind="order"))
    assert diary.texts() == ["[nota de voz]", "[order]"]


def test_messages_that_memory_merged_are_all_said_once_and_in_order(diary: Diary) -> None:
    many = [f"m{number:03}" for number in range(w.MAX_WAITING + 30)]
    diary.write(*(diary.said(text, at=NOON + n * SECOND) for n, text in enumerate(many)))
    assert len(diary.state.pending) == w.MAX_WAITING
    assert diary.texts() == many


def test_merged_messages_that_outlive_a_run_do_not_bring_the_past_back(diary: Diary) -> None:
    many = [f"m{number:03}" for number in range(w.MAX_WAITING)]
    diary.write(*(diary.said(text, at=NOON) for text in many))
    diary.run()
    diary.write(*(diary.said(text, at=NOON + SECOND) for text in ("x", "y", "z")))
    diary.complete()
    assert [entry.count for entry in diary.state.pending] == [3]
    assert diary.texts() == ["x", "y", "z"]


def test_merged_messages_are_said_as_edited_and_not_at_all_if_taken_back(diary: Diary) -> None:
    many = [f"m{number:03}" for number in range(w.MAX_WAITING)]
    diary.write(*(diary.said(text, at=NOON) for text in many))
    diary.write(diary.said("noise", answerable=False))
    diary.write(*(diary.said(text, at=NOON + SECOND) for text in ("x", "y")))
    diary.write(diary.edited("x", "X"), e.MessageDeleted(ref=ref("m199")))
    assert diary.texts() == [*many[:-1], "X", "y"]


@given(
    st.text(alphabet=st.sampled_from("ab \n"), max_size=400), st.integers(min_value=2, max_value=60)
)
def test_a_long_answer_is_cut_and_nothing_of_it_is_lost(text: str, limit: int) -> None:
    parts = split_reply(text, limit)
    assert all(0 < len(part) <= limit for part in parts)
    assert all(part == part.strip() for part in parts)
    assert re.sub(r"\s", "", "".join(parts)) == re.sub(r"\s", "", text)


def test_an_answer_is_cut_where_a_paragraph_ends() -> None:
    first, second = "a" * 2500, "b" * 2500
    assert split_reply(f"{first}\n\n{second} c\nd") == (first, f"{second} c\nd")
    assert split_reply("x" * (MAX_PART + 1)) == ("x" * MAX_PART, "x")
    assert split_reply(" \n ") == ()
