"""Accounts of a demo in which everything went well, for tests to tamper with."""

from __future__ import annotations

from msgspec.structs import replace

from app.demo.accounts import (
    Attempt,
    Ledger,
    OpenAIAccount,
    Response,
    Shown,
    Usage,
    Webhooks,
    WhapiAccount,
)
from app.demo.judge import Dump, Evidence
from app.demo.traffic import Plan, plan
from eventstore.types import AppendId, Epoch, Micros, Position, Recorded, StreamName, Version

USAGE = Usage(total_tokens=30, input_tokens=20, output_tokens=10)
VIEWS: Dump = {"(positions)": [("threads", 9)], "threads": [("ana", 1), ("ben", 2)]}
EPOCH = Epoch(1)


def honest() -> Evidence:
    """Return evidence against which nothing can be said: one run and one reply a message."""
    planned = plan(users=2, messages=2, seed=7)
    responses: list[Response] = []
    chats: dict[str, list[Shown]] = {}
    ledger = Ledger()
    for number, (reference, phone) in enumerate(planned.expecting("answer").items()):
        run = f"run_{number}"
        text = f"hola ({reference})"
        responses.append(Response(f"resp_{number}", "completed", (text,), USAGE, {"run": run}))
        ledger.recorded[run] = USAGE
        ledger.attempts[run] = Attempt(f"user/{phone}", 1, 2)
        shown = Shown(f"m{number}", f"Eco: {text}")
        chats.setdefault(f"{phone}@s.whatsapp.net", []).append(shown)
    reported = Usage(*(count * len(responses) for count in (30, 20, 10)))
    return Evidence(
        plan=planned,
        openai=OpenAIAccount(tuple(responses), reported),
        whapi=WhapiAccount(
            {chat: tuple(messages) for chat, messages in chats.items()},
            sent=len(responses),
            webhooks=Webhooks(queued=20, delivered=20),
        ),
        ledger=ledger,
        live=VIEWS,
        rebuilt=VIEWS,
    )


def a_message(planned: Plan) -> tuple[str, str]:
    """Return the reference and the phone of a message that wants an answer."""
    return next(iter(planned.expecting("answer").items()))


def without_replies_to(whapi: WhapiAccount, reference: str) -> WhapiAccount:
    """Return the account as if no phone had shown an answer to the reference."""
    kept = {
        chat: tuple(shown for shown in messages if reference not in shown.body)
        for chat, messages in whapi.chats.items()
    }
    return replace(whapi, chats=kept)


def with_reply(whapi: WhapiAccount, phone: str, body: str) -> WhapiAccount:
    """Return the account with one more message on a phone."""
    chat = f"{phone}@s.whatsapp.net"
    more = (*whapi.chats.get(chat, ()), Shown("more", body))
    return replace(whapi, chats={**whapi.chats, chat: more})


def log_of(*appends: tuple[str, int]) -> list[Recorded]:
    """Return the events of appends: each names its stream and how many events it has."""
    events: list[Recorded] = []
    versions: dict[str, int] = {}
    for number, (stream, count) in enumerate(appends, 1):
        for _ in range(count):
            versions[stream] = versions.get(stream, 0) + 1
            events.append(
                Recorded(
                    position=Position(len(events) + 1),
                    stream=StreamName(stream),
                    version=Version(versions[stream]),
                    type="MessageReceived",
                    recorded_at=Micros(number * 10),
                    key=None,
                    append_id=AppendId(number.to_bytes(16, "big")),
                    state=b"",
                )
            )
    return events
