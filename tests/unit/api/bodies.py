"""Webhook bodies in the vendor's formats, about people who do not exist."""

from __future__ import annotations

from typing import Any

import msgspec

from app.api.whapi import read
from app.conversation.facts import Delivery, Fact

CHANNEL = "HERON-K7Q2M"
PHONE = "15550100042"
CHAT = f"{PHONE}@s.whatsapp.net"
LID = "98765432101234"
BOT = "15550100099"
GROUP = "120363000000000042@g.us"
SENT_AT = 1_790_000_000
SENT_AT_MICROS = SENT_AT * 1_000_000

Json = dict[str, Any]


def message(kind: str = "text", content: object = None, **fields: object) -> Json:
    """A message to the bot, in a one-to-one chat; a field given as None is left out."""
    whole: Json = {
        "id": "Pk3.vQz81mLwTs0-gA4TrQ",
        "from_me": False,
        "type": kind,
        "chat_id": CHAT,
        "timestamp": SENT_AT,
        "source": "mobile",
        kind: {"body": "Is the blue kayak free on Sunday?"} if kind == "text" else content,
        "from": PHONE,
        "from_name": "Nerea Quill",
        **fields,
    }
    if content is not None:
        whole[kind] = content
    return {name: value for name, value in whole.items() if value is not None}


def body(topic: str = "messages", verb: str = "post", **collections: object) -> bytes:
    """An envelope as mode `body` sends it."""
    event = {"type": topic, "event": verb}
    return msgspec.json.encode({**collections, "event": event, "channel_id": CHANNEL})


def facts_of(topic: str = "messages", verb: str = "post", **collections: object) -> list[Fact]:
    return list(read(body(topic, verb, **collections)).facts)


def fact_of(*messages: Json, verb: str = "post") -> Fact:
    (fact,) = facts_of(verb=verb, messages=list(messages))
    return fact


def said(delivery: Delivery) -> list[str]:
    """The texts of the messages of a delivery."""
    return [fact.text for fact in delivery.facts if hasattr(fact, "text")]
