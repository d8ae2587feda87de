"""One or more values of everything that is stored, by stored name.

The golden files hold the bytes of each. When a type gets a field, add a sample that has it, and
run `python -m tests.golden.generate`; never change or remove a sample: the bytes are out there.
When a type gets a new schema, its samples stand under the new name (`MessageReceived@2`) and under
the old one, there with the value that the upcaster makes of the old bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.aggregates import access_events as a
from app.aggregates import cleanup_events as n
from app.aggregates import control_events as c
from app.aggregates import events as e
from app.aggregates import gateway_events as g
from app.aggregates import job_events as j
from eventstore.codec import Event
from eventstore.sealing import Sealed

REF = bytes(range(16))
AT = 1_752_600_987_123_456
SEALED: Sealed[Any] = Sealed(20253, b"\x00nonce-and-ciphertext\xff", bytes(range(32)))

MEDIA = e.Media(
    id="jpeg-1",
    mime="image/jpeg",
    size=123_456,
    sha256="ab" * 32,
    link="https://example.org/jpeg-1",
    file_name="café.jpg",
    seconds=1.5,
)
CONTENT = e.Content(
    message_id="wamid.1",
    chat_id="573001112233@s.whatsapp.net",
    text="Hola 🧵",
    name="Ana",
    quoted_id="wamid.0",
    media=MEDIA,
    raw=b'{"type":"poll"}',
)

VALUES: dict[str, dict[str, msgspec.Struct]] = {
    "Content": {"full": CONTENT, "least": e.Content(message_id="m", chat_id="c")},
    "Media": {"full": MEDIA, "least": e.Media(id="m")},
    "Profile": {
        "full": e.Profile(name="Ana", labels=("vip", "niño")),
        "least": e.Profile(),
        "own name": e.Profile(name="Ana", labels=("vip",), user_name="Anita"),
    },
    "Reply": {"full": e.Reply(parts=("Hola", "¿qué tal?")), "least": e.Reply(parts=())},
    "Sealed": {"full": SEALED},
    "SentMessage": {"full": e.SentMessage(message_id="wamid.2")},
}
"""What is stored inside events: in the clear only `Sealed`, the others within one."""

USER: dict[str, dict[str, Event]] = {
    "UserRegistered": {"full": e.UserRegistered(gateway="whapi", chat=SEALED, at=AT)},
    "ProfileUpdated": {"full": e.ProfileUpdated(profile=SEALED)},
    "MessageReceived": {
        "full": e.MessageReceived(
            ref=REF, kind="text", content=SEALED, answerable=False, at=AT, cor="run_1", cau=7
        ),
        "least": e.MessageReceived(ref=REF, kind="voice", content=SEALED),
    },
    "MessageEdited": {
        "full": e.MessageEdited(ref=REF, content=SEALED, early=True, at=AT),
        "least": e.MessageEdited(ref=REF, content=SEALED),
    },
    "MessageDeleted": {
        "full": e.MessageDeleted(ref=REF, early=True, at=AT, cau=3),
        "least": e.MessageDeleted(ref=REF),
    },
    "TypingObserved": {
        "full": e.TypingObserved(presence="recording"),
        "least": e.TypingObserved(),
    },
    "HumanMessageSent": {"full": e.HumanMessageSent(ref=REF, content=SEALED, at=AT)},
    "MessageImported": {
        "full": e.MessageImported(ref=REF, kind="image", content=SEALED, sender="business", at=AT),
        "least": e.MessageImported(ref=REF, kind="text", content=SEALED),
    },
    "MessageEchoed": {"full": e.MessageEchoed(ref=REF, content=SEALED, at=AT)},
    "MessageStatusChanged": {"full": e.MessageStatusChanged(ref=REF, status="read", at=AT)},
    "ThreadStarted": {
        "full": e.ThreadStarted(thread="conv_1", reason="first_time", cau=9),
        "filled": e.ThreadStarted(thread="conv_1", reason="gone", last_item="msg_9", at=AT),
    },
    "ThreadReset": {
        "full": e.ThreadReset(thread="conv_1", reason="cleanup", left_behind=1_000_001),
        "cleaned up": e.ThreadReset(thread="conv_1", reason="cleanup", left_behind=9, cor="c1"),
        "least": e.ThreadReset(thread=None, reason="restored"),
    },
    "RunStarted": {
        "full": e.RunStarted(
            run="run_1", node="a", incarnation="f00d", attempt=2, up_to=300, cor="run_1", cau=300
        ),
    },
    "TurnTakenOver": {
        "full": e.TurnTakenOver(
            run="run_1", node="node-b", incarnation="inc2", before="inc1", cor="run_1", cau=4
        ),
    },
    "RunSubmitted": {
        "full": e.RunSubmitted(run="run_1", response="resp_1", thread="conv_1", cor="run_1"),
        "least": e.RunSubmitted(run="run_1", response="resp_1"),
    },
    "RunCompleted": {
        "full": e.RunCompleted(
            run="run_1", response="resp_1", reply=SEALED, parts=2, last_item="msg_9", cor="run_1"
        ),
        "least": e.RunCompleted(run="run_1", response="resp_1", reply=SEALED, parts=1),
    },
    "RunFailed": {
        "full": e.RunFailed(run="run_1", code="timeout", retry_at=AT, response="resp_1"),
        "least": e.RunFailed(run="run_1", code="timeout"),
    },
    "RunCancelled": {
        "full": e.RunCancelled(run="run_1", reason="thread_busy", retry_at=AT),
        "least": e.RunCancelled(run="run_1", reason="orphaned"),
    },
    "TokensIncremented": {
        "full": e.TokensIncremented(
            thread="conv_1",
            run="run_1",
            total=150_000,
            input=100_000,
            output=50_000,
            cached=70_000,
            reasoning=300,
            model="gpt-5.2",
            cor="run_1",
        ),
        "least": e.TokensIncremented(thread="conv_1", run="run_1", total=1),
    },
    "UsageUnknown": {
        "full": e.UsageUnknown(run="run_1", thread="conv_1", cor="run_1"),
        "least": e.UsageUnknown(run="run_1"),
    },
    "DeliveryStarted": {
        "full": e.DeliveryStarted(run="run_1", part=1, deadline=AT, attempt=2, cor="run_1"),
        "least": e.DeliveryStarted(run="run_1", part=0, deadline=AT),
    },
    "MessageSent": {
        "full": e.MessageSent(run="run_1", part=1, ref=REF, sent=SEALED, adopted="list"),
        "least": e.MessageSent(run="run_1", part=0, ref=REF, sent=SEALED),
    },
    "DeliveryFailed": {
        "full": e.DeliveryFailed(run="run_1", part=1, code="rate_limited", retry_at=AT),
        "least": e.DeliveryFailed(run="run_1", part=0, code="refused"),
    },
    "DeliveryUncertain": {"full": e.DeliveryUncertain(run="run_1", part=1, cor="run_1")},
    "TurnParked": {
        "full": e.TurnParked(
            reason="orphaned", attempts=3, up_to=300, run="sorry_1", apology=SEALED, parts=2
        ),
        "least": e.TurnParked(reason="failed", attempts=1, up_to=3),
    },
    "TurnRetried": {"full": e.TurnRetried(by="ana", why="fixed"), "least": e.TurnRetried(by="a")},
    "TurnDropped": {"full": e.TurnDropped(by="ana", why="spam"), "least": e.TurnDropped(by="a")},
    "ActivityRecorded": {
        "full": e.ActivityRecorded(last_activity=AT, tokens=1050, thread="conv_1"),
        "least": e.ActivityRecorded(last_activity=AT, tokens=0),
    },
}

GATEWAY: dict[str, dict[str, Event]] = {
    "OtherRecorded": {"full": g.OtherRecorded(kind="group_message", body=SEALED, at=AT)},
    "WebhookItemRejected": {"full": g.ItemRejected(reason="no id", body=SEALED)},
    "EarlyDelete": {"full": g.EarlyDelete(ref=REF)},
    "EarlyDeleteApplied": {"full": g.EarlyDeleteApplied(ref=REF, cau=4)},
}

JOBS: dict[str, dict[str, Event]] = {
    "JobRequested": {"full": j.JobRequested(by="ana")},
    "JobStarted": {
        "full": j.JobStarted(slot=AT, node="node-a", incarnation="inc1", attempt=2),
        "least": j.JobStarted(slot=AT, node="node-a", incarnation="inc1"),
    },
    "JobEnded": {"full": j.JobEnded(slot=AT, result="2 forgotten"), "least": j.JobEnded(slot=AT)},
    "JobFailed": {"full": j.JobFailed(slot=AT, code="LogUnavailable")},
    "JobGivenUp": {"full": j.JobGivenUp(slot=AT, attempts=3)},
}

CONTROL: dict[str, dict[str, Event]] = {
    "OperatorActed": {
        "full": c.OperatorActed(
            action="turns drop",
            by="ana@bastion",
            bot="ventas",
            why="el niño",
            about=("a2b3c4d5e6f7g2h3i4j5", "thread_map"),
            at=AT,
            cor="run_1",
            cau=7,
        ),
        "least": c.OperatorActed(action="projections rebuild", by="1000@host"),
    },
    "BotOpened": {
        "full": c.BotOpened(
            bot="ventas",
            release="0.3.0",
            node="host:data",
            fingerprint=REF,
            settings={"channel": "HERON-K7Q2M", "model": "gpt-5"},
            at=AT,
            cor="run_1",
            cau=7,
        ),
        "least": c.BotOpened(bot="b", release="1", node="n", fingerprint=b""),
    },
}

CLEANUP: dict[str, dict[str, Event]] = {
    "CleanupRecorded": {
        "full": n.CleanupRecorded(cleanup="c1", limit=1_000_000, cleaned=3, tokens=7, by="ana"),
        "least": n.CleanupRecorded(cleanup="c1", limit=1, cleaned=0, tokens=0),
    },
}

ACCESS: dict[str, dict[str, Event]] = {
    "KeyCreated": {
        "full": a.KeyCreated(
            key="b85073bd2c",
            digest=bytes(range(32)),
            role="auditor",
            by="ana@bastion",
            bot="ventas",
            name="auditoría",
            expires_at=AT,
        ),
        "least": a.KeyCreated(key="b85073bd2c", digest=bytes(32), role="hook", by="ana@bastion"),
    },
    "KeyRevoked": {"full": a.KeyRevoked(key="b85073bd2c", by="ana@bastion", why="perdida")},
    "KeyUsed": {"full": a.KeyUsed(key="b85073bd2c")},
}
