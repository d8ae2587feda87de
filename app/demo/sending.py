"""People at their phones: the steps of a plan, done over HTTP at the Whapi simulator.

Nothing here talks to the bot: the simulator delivers webhooks to it, as Whapi would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import httpx2
import msgspec

from app.demo.traffic import Person, Plan, Script, Step

GROUP: Final = "120363000000000001@g.us"
CHANNEL: Final = "SIMULA-H1L0X"
"""What the simulator calls its channel: a repeated delivery names it, too."""

_ANSWER_SECONDS: Final = 30.0
"""How long a person waits for an answer before writing on regardless."""


class _Queued(msgspec.Struct):
    id: str
    seq: int


class Sent(msgspec.Struct, frozen=True):
    """A message as it went out: enough to deliver it again."""

    id: str
    phone: str
    name: str
    text: str
    at: int


class Sender:
    """Plays scripts, one coroutine a person, and remembers what was sent."""

    def __init__(self, whapi: httpx2.AsyncClient, on_message: Callable[[int], None]) -> None:
        """Send through the simulator; `on_message` hears how many messages were sent so far.

        It is told of those that want an answer.
        """
        self._whapi = whapi
        self._on_message = on_message
        self._sent: dict[str, Sent] = {}
        self.messages = 0
        self.repeated = 0

    async def play(self, script: Script) -> None:
        """Do what one person does."""
        for pause, burst in zip(script.pauses, script.bursts, strict=True):
            await asyncio.sleep(pause)
            seq = 0
            for step in burst:
                seq = await self._do(script.person, step) or seq
            await self._wait_for_answer(script.person, seq)

    async def repeat_some(self, plan: Plan, most: int) -> None:
        """Let the gateway deliver the first texts of some people once more."""
        for script in plan.scripts[:most]:
            texts = (s for s in script.steps() if s.deed == "say" and s.reference in self._sent)
            step = next(texts, None)
            if step is not None:
                await self._repeat(step)

    async def _do(self, person: Person, step: Step) -> int:
        """Do one step; return the number in the chat of a message that was made, else 0."""
        match step.deed:
            case "typing":
                await self._post(person.phone, "typing", {"status": "typing"})
            case "repeat":
                await self._repeat(step)
            case "edit":
                told = {"id": self._sent[step.reference].id, "text": step.text, "as": step.form}
                await self._post(person.phone, "edit", told)
            case "delete":
                told = {"id": self._sent[step.reference].id, "as": step.form}
                await self._post(person.phone, "delete", told)
            case _:
                return await self._write(person, step)
        return 0

    async def _write(self, person: Person, step: Step) -> int:
        where, how = person.phone, "say"
        override: dict[str, object] = {}
        match step.deed:
            case "image" | "voice" | "agent":
                how = step.deed
            case "group":
                where = GROUP
                override = {"from": person.phone, "from_name": person.name}
            case "unknown":
                override = {"type": "hologram", "hologram": {"beam": step.text}, "text": None}
            case "system":
                override = {"type": "system", "source": "system", "system": {"body": step.text}}
        said: dict[str, object] = {"text": step.text, "message": override}
        if step.deed != "group":
            said["name"] = person.name
        queued = msgspec.json.decode(await self._post(where, how, said), type=_Queued)
        self._sent[step.reference] = Sent(
            queued.id, person.phone, person.name, step.text, int(time.time())
        )
        if step.expect == "answer":
            self.messages += 1
            self._on_message(self.messages)
        return 0 if step.deed == "group" else queued.seq

    async def _repeat(self, step: Step) -> None:
        sent = self._sent[step.reference]
        message = {
            "id": sent.id,
            "from_me": False,
            "type": "text",
            "chat_id": f"{sent.phone}@s.whatsapp.net",
            "timestamp": sent.at,
            "source": "mobile",
            "text": {"body": sent.text},
            "from": sent.phone,
            "from_name": sent.name,
        }
        envelope = {
            "messages": [message],
            "event": {"type": "messages", "event": "post"},
            "channel_id": CHANNEL,
        }
        answer = await self._whapi.post("/_sim/deliver", json=envelope)
        answer.raise_for_status()
        self.repeated += 1

    async def _wait_for_answer(self, person: Person, seq: int) -> None:
        query = {"after": seq, "bot": 1, "timeout": _ANSWER_SECONDS}
        answer = await self._whapi.get(
            f"/_sim/phone/{person.phone}/wait", params=query, timeout=_ANSWER_SECONDS + 10
        )
        answer.raise_for_status()

    async def _post(self, phone: str, how: str, content: Mapping[str, object]) -> bytes:
        answer = await self._whapi.post(f"/_sim/phone/{phone}/{how}", json=content)
        answer.raise_for_status()
        return answer.content
