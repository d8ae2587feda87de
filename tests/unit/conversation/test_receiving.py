"""Facts in: a delete is never lost, whoever comes first; a bad item harms nobody; nothing twice."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from app.aggregates.user_state import UserState
from app.bot import Bot
from app.conversation.facts import (
    NOTHING_ODD,
    DeleteFact,
    Delivery,
    EditFact,
    Fact,
    MessageFact,
    Odd,
    OtherFact,
    Person,
    PresenceFact,
    RejectedFact,
    StatusFact,
)
from app.conversation.identities import user_stream
from app.conversation.leftovers import BOT
from app.conversation.receiving import AT_ONCE
from app.outside import Outside, open_outside
from app.settings import load
from eventstore.errors import AppendRejected, KeyMissing, LogUnavailable
from eventstore.store import Beat
from eventstore.types import Append, IdempotencyKey, Snapshot, StreamName

ANA = Person(phone="15550109101")


BEA = Person(phone="15550109102")


def message(message_id: str = "m1", text: str = "hola", *, origin: str = "person") -> MessageFact:
    """What somebody wrote."""
    fact = MessageFact(
        id=message_id,
        person=ANA,
        chat_id="15550109101@s.whatsapp.net",
        at=1_790_000_000_000_000,
        kind="text",
        origin="person",
        text=text,
    )
    return replace(fact, origin=origin)


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    """A bot that takes webhooks and does nothing else: it was never started."""
    settings = load(
        data=tmp_path / "data", logs=tmp_path / "logs", log_writer="thread", read_models="thread"
    )
    nowhere: Outside = open_outside(
        settings, openai_url="http://127.0.0.1:9/v1", whapi_url="http://127.0.0.1:9"
    )
    bot = Bot(settings, nowhere)
    yield bot
    await bot.close()


async def take(bot: Bot, *facts: Fact) -> Odd:
    """Deliver one webhook; return what of it was odd."""
    return await bot.receiver(Delivery(gateway="whapi", channel="", facts=facts))


async def ana(bot: Bot) -> UserState:
    """What is known of Ana."""
    stream = user_stream(await bot.identities.pseudonym(ANA))
    return (await bot.users.look(stream)).state


def types(bot: Bot) -> list[str]:
    """The log, by the types of its events."""
    return [row.type for row in bot.log.read()]


async def test_a_message_is_recorded_once_however_often_it_comes(bot: Bot) -> None:
    await take(bot, message(), message())
    await asyncio.gather(take(bot, message()), take(bot, message()))
    assert types(bot) == ["UserRegistered", "MessageReceived"]
    assert bot.receiver.counts["duplicate"] == 3


async def test_a_delete_whose_message_comes_in_at_that_moment_is_applied(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = bot.receiver._find
    looked = 0

    async def then_it_comes(ref: IdempotencyKey) -> StreamName | None:
        nonlocal looked
        looked += 1
        found = await find(ref)
        if looked == 1:
            await take(bot, message())
        return found

    monkeypatch.setattr(bot.receiver, "_find", then_it_comes)
    await take(bot, DeleteFact(ids=("m1",)))
    assert (await ana(bot)).pending == ()
    assert "MessageDeleted" in types(bot)


async def test_a_delete_that_came_first_is_applied_even_after_a_crash_in_between(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    await take(bot, DeleteFact(ids=("m1",)))

    async def dies(*_: object) -> None:
        raise LogUnavailable  # as if the process had ended here

    with monkeypatch.context() as crash:
        crash.setattr(bot.receiver, "_apply_early_delete", dies)
        with pytest.raises(LogUnavailable):
            await take(bot, message())
    assert len((await ana(bot)).pending) == 1
    await take(bot, message())
    assert (await ana(bot)).pending == ()


async def test_the_same_delete_twice_is_one(bot: Bot) -> None:
    await take(bot, message())
    for _ in range(2):
        await take(bot, DeleteFact(ids=("m1",)))
        await take(bot, DeleteFact(ids=("never-seen",)))
    assert types(bot).count("MessageDeleted") == types(bot).count("EarlyDelete") == 1


async def test_an_edit_is_recorded_for_each_new_text_only(bot: Bot) -> None:
    await take(bot, message())
    for text in ("a", "a", "b"):
        await take(bot, EditFact(id="m1", message=message(text=text)))
    assert types(bot).count("MessageEdited") == 2


async def test_one_item_that_cannot_be_recorded_does_not_harm_its_neighbours(bot: Bot) -> None:
    nobody = MessageFact(
        id="m2", person=Person(), chat_id="", at=0, kind="text", origin="person", text="secret"
    )
    await take(bot, message(), nobody, RejectedFact("unreadable", b"{}"))
    assert sorted(types(bot)) == [
        "MessageReceived",
        "UserRegistered",
        "WebhookItemRejected",
        "WebhookItemRejected",
    ]
    assert all(b"secret" not in row.state for row in bot.log.read())


async def test_a_log_that_cannot_be_written_fails_the_whole_delivery(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LogUnavailable  # the disk is full

    with monkeypatch.context() as full:
        full.setattr(bot.log, "append_batch", refuse)
        with pytest.raises(LogUnavailable):
            await take(bot, message(), message("m2"))
    assert types(bot) == []
    await take(bot, message(), message("m2"))
    assert types(bot).count("MessageReceived") == 2


async def test_while_the_keys_are_locked_nobody_new_is_acknowledged_and_nothing_is_rejected(
    bot: Bot,
) -> None:
    await take(bot, message())
    bot.keyring._store._connection.execute("PRAGMA busy_timeout = 0")  # type: ignore[attr-defined]
    other = sqlite3.connect(bot.settings.data / "default" / "keys.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    new = replace(message("m3"), person=BEA)
    with pytest.raises(LogUnavailable):
        await take(bot, message("m2"), new)
    assert "WebhookItemRejected" not in types(bot)
    other.close()
    await take(bot, message("m2"), new)
    assert types(bot).count("MessageReceived") == 3


@pytest.mark.parametrize(
    "fault",
    [
        sqlite3.OperationalError("disk I/O error"),
        OSError(28, "No space left on device"),
        KeyMissing("somebody", 1),
        MemoryError(),
        RuntimeError("cannot schedule new futures after shutdown"),
    ],
)
async def test_what_is_not_the_items_fault_fails_the_delivery_and_rejects_nothing(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: object) -> None:
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(bot.sealer, "seal", fail)
        for facts in ((message(),), (message(), PresenceFact(ANA, "online"))):
            with capture_logs() as logs, pytest.raises(LogUnavailable) as caught:
                await take(bot, *facts)
            assert caught.value.__cause__ is fault
            assert [(row["event"], row["error"]) for row in logs] == [
                ("WEBHOOK_ITEM_FAILED", type(fault).__name__)
            ]
    assert types(bot) == []
    await take(bot, message())
    assert "MessageReceived" in types(bot)


@pytest.mark.parametrize("fault", [ValueError(), TypeError(), KeyError(), AppendRejected()])
async def test_what_an_item_does_each_time_it_comes_rejects_it_once(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    async def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(bot.receiver, "_take_message", fail)
    for _ in range(2):
        assert await take(bot, message()) == Odd(rejected=1, other=0)
    assert types(bot) == ["WebhookItemRejected"]
    assert bot.receiver.counts == {"rejected": 1, "duplicate": 1}


async def test_what_no_turn_will_look_at_is_told_and_counted_among_what_it_will(bot: Bot) -> None:
    assert await take(bot, message()) == NOTHING_ODD
    facts = (message("m2"), OtherFact(kind="x.post", raw=b"1"), RejectedFact("unreadable", b"1"))
    for _ in range(2):  # delivered again, they are no less odd
        assert await take(bot, *facts) == Odd(rejected=1, other=1)
    # A status of what was sent before the bot came is usual; it is kept and counted.
    unknown = StatusFact(id="unknown", status="read", person=None, at=1)
    assert await take(bot, unknown) == NOTHING_ODD
    assert bot.receiver.counts["other"] == types(bot).count("OtherRecorded") == 2


async def test_a_body_delivered_again_adds_nothing_even_of_what_has_no_id(bot: Bot) -> None:
    facts = (
        OtherFact(kind="x.post", raw=b"1"),
        OtherFact(kind="x.post", raw=b"1"),
        RejectedFact("unreadable", b"1"),
        StatusFact(id="unknown", status="read", person=None, at=1),
    )
    for _ in range(3):
        await take(bot, *facts)
    assert len(types(bot)) == len(facts)
    await take(bot, OtherFact(kind="x.post", raw=b"2"))
    assert len(types(bot)) == len(facts) + 1


async def test_a_large_body_delivered_again_is_looked_up_not_fought_over(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts: list[Fact] = []
    for number in range(AT_ONCE):
        facts += [
            message(f"m{number}"),
            StatusFact(id=f"s{number}", status="read", person=ANA, at=1),
            StatusFact(id=f"u{number}", status="read", person=None, at=1),
            OtherFact(kind="x.post", raw=b"%d" % number),
            RejectedFact("unreadable", b"%d" % number),
        ]
    await take(bot, *facts)
    log = types(bot)
    assert len(log) == len(facts) + 1

    def refuse(*_: object) -> None:
        pytest.fail("something was appended")

    monkeypatch.setattr(bot.log, "append_batch", refuse)
    await take(bot, *facts)
    assert bot.receiver.counts["duplicate"] == len(facts)


async def test_an_item_too_large_for_the_log_is_kept_in_part(bot: Bot) -> None:
    await take(bot, OtherFact(kind="x.post", raw=bytes(5 * 1024 * 1024)))
    assert types(bot) == ["WebhookItemRejected"]


async def test_a_large_body_is_taken_in_its_order_and_lets_its_neighbours_in_between(
    bot: Bot,
) -> None:
    await bot.identities.pseudonym(ANA)
    many = (OtherFact(kind="x.post", raw=b"%d" % number) for number in range(5 * AT_ONCE))
    large = asyncio.create_task(take(bot, *many))
    await asyncio.sleep(0)
    await take(bot, message())
    assert not large.done()
    await large
    log = types(bot)
    assert log.index("MessageReceived") <= 2 * AT_ONCE + 1
    assert len(log) == 5 * AT_ONCE + 2


async def test_the_deletes_of_one_body_do_not_wait_for_each_other(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, commits = bot.log.append_batch, 0

    def count(
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot] = (),
        beats: Sequence[Beat] = (),
    ) -> object:
        nonlocal commits
        commits += 1
        return append(appends, snapshots, beats)

    monkeypatch.setattr(bot.log, "append_batch", count)
    await take(bot, DeleteFact(ids=tuple(f"m{number}" for number in range(2 * AT_ONCE)) * 2))
    assert types(bot) == ["EarlyDelete"] * (2 * AT_ONCE)
    assert commits < AT_ONCE


async def test_a_human_and_the_bots_own_echo_wait_for_no_answer(bot: Bot) -> None:
    await take(bot, message("h1", origin="human"), message("e1", origin="bot"))
    assert (await ana(bot)).pending == ()
    assert types(bot) == ["UserRegistered", "HumanMessageSent", "MessageEchoed"]


async def test_an_echo_of_what_the_log_knows_already_is_nothing_new(bot: Bot) -> None:
    await take(bot, message("x1", origin="human"))
    await take(bot, message("x1", origin="bot"))
    assert "MessageEchoed" not in types(bot)


async def test_typing_counts_only_while_somebody_waits(bot: Bot) -> None:
    await take(bot, PresenceFact(person=ANA, presence="typing"))
    await take(bot, message())
    await take(bot, PresenceFact(person=ANA, presence="online"))
    assert "TypingObserved" not in types(bot)
    for _ in range(3):
        await take(bot, PresenceFact(person=ANA, presence="recording"))
    assert types(bot).count("TypingObserved") == 1, "at most every 3 s"


async def test_statuses_and_other_things_are_recorded_once(bot: Bot) -> None:
    for _ in range(2):
        await take(bot, StatusFact(id="s1", status="read", person=ANA, at=1))
        await take(bot, OtherFact(kind="calls.post", raw=b"{}", id="c1"))
        await take(bot, StatusFact(id="unknown", status="read", person=None, at=1))
    assert types(bot) == ["MessageStatusChanged", "OtherRecorded", "OtherRecorded"]


async def test_a_key_out_of_memory_behind_a_busy_keyring_stops_nobody_else(
    bot: Bot, tmp_path: Path
) -> None:
    await take(bot, message())
    other = OtherFact(kind="calls.post", raw=b"{}")
    with sqlite3.connect(tmp_path / "data" / "default" / "keys.db") as keys:
        keys.execute("BEGIN IMMEDIATE")  # as a backup, or another process that writes
        waiting = [asyncio.create_task(take(bot, replace(message("m2"), person=BEA)))]
        while not bot.keyring._io.locked():  # noqa: ASYNC110 - a thread's lock
            await asyncio.sleep(0)
        bot.keyring.evict(BOT)
        waiting.append(asyncio.create_task(take(bot, other)))
        await take(bot, message("m3"))
        assert not any(task.done() for task in waiting)
        keys.rollback()
    await asyncio.gather(*waiting)
    assert types(bot).count("MessageReceived") == 3
    assert types(bot).count("OtherRecorded") == 1
