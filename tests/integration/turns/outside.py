"""The outside world as a test sees it: phones that write, faults that are switched on, accounts."""

from __future__ import annotations

import random
import time

import httpx2
import msgspec

from tests.integration.turns.judging import Asked, Expect, OpenAIAccount, WhapiAccount

PATIENCE = 20.0
"""Seconds after which a test that waits for something gives up and fails."""

Json = dict[str, object]
RESPONSES = "POST /v1/responses"
SENDS = "POST /messages/text"
LISTS = "GET /messages/list/*"

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Outside:
    """Both simulators over HTTP, and what was asked of the bot through them."""

    def __init__(self, openai_url: str, whapi_url: str, *, seed: int = 1) -> None:
        """`openai_url` without its `/v1`."""
        self.openai_url = openai_url
        self.whapi_url = whapi_url
        self.asked: dict[str, Asked] = {}
        self._rng = random.Random(seed)
        self._openai = httpx2.AsyncClient(base_url=openai_url, timeout=PATIENCE + 5)
        self._whapi = httpx2.AsyncClient(base_url=whapi_url, timeout=PATIENCE + 5)

    async def close(self) -> None:
        """Close the connections."""
        await self._openai.aclose()
        await self._whapi.aclose()

    # -- people -----------------------------------------------------------------------------------

    def token(self, phone: str, expect: Expect = "answer") -> str:
        """Return a new token, and remember what is expected of the message that holds it."""
        token = "tok-" + "".join(self._rng.choices(_LETTERS, k=8))
        self.asked[token] = Asked(phone, expect)
        return token

    async def say(
        self, phone: str, text: str = "hola", *, expect: Expect = "answer", **message: object
    ) -> Said:
        """Write from a phone; `message` overrides fields of the gateway's message."""
        token = self.token(phone, expect)
        body: Json = {"text": f"{text} {token}", "message": message}
        told = await self.phone(phone, "say", **body)
        return Said(phone, str(told["id"]), token, f"{text} {token}")

    async def phone(self, phone: str, path: str, **body: object) -> Json:
        """Do something on a phone."""
        return await self._post(self._whapi, f"/_sim/phone/{phone}/{path}", body)

    async def edit(self, said: Said, text: str, form: str = "patch") -> None:
        """Change a message on its phone; the token stays."""
        body: Json = {"id": said.id, "text": f"{text} {said.token}", "as": form}
        await self.phone(said.phone, "edit", **body)

    async def take_back(self, said: Said, form: str = "delete") -> None:
        """Delete a message for everyone; it must not be answered."""
        self.expect(said, "silence")
        await self.phone(said.phone, "delete", **{"id": said.id, "as": form})

    def expect(self, said: Said, expect: Expect) -> None:
        """Expect something else of a message."""
        self.asked[said.token] = Asked(said.phone, expect)

    async def reads(self, phone: str, count: int = 1, seconds: float = PATIENCE) -> list[str]:
        """Return what the bot wrote to a phone as soon as it is `count` messages."""
        deadline = time.monotonic() + seconds
        after = 0
        while True:
            bodies = (await self.whapi_account()).bodies(phone)
            if len(bodies) >= count:
                return bodies
            left = deadline - time.monotonic()
            assert left > 0, f"{phone} reads {bodies}, not {count} messages"
            path = f"/_sim/phone/{phone}/wait"
            query = f"?after={after}&timeout={min(left, 5.0):.3f}&bot=1"
            after = int(str((await self._get(self._whapi, path + query))["last"]))

    async def silence(self, phone: str, seconds: float) -> None:
        """Watch a phone for so long: the bot must not write to it."""
        assert await self.watch(phone, seconds) == []

    async def watch(self, phone: str, seconds: float) -> list[str]:
        """Return what the bot writes to a phone next, at the latest after so long."""
        before = await self._get(self._whapi, f"/_sim/phone/{phone}")
        path = f"/_sim/phone/{phone}/wait?after={before['last']}&timeout={seconds}&bot=1"
        seen = await self._get(self._whapi, path)
        messages = seen["messages"]
        assert isinstance(messages, list)
        return [m["body"] for m in messages if m["from"] == "bot"]

    async def presence(self, phone: str, other_than: str) -> str:
        """Return what the phone shows the bot to be doing, as soon as it is something else."""
        path = f"/_sim/phone/{phone}/wait?after=1000&timeout={PATIENCE}&presence={other_than}"
        return str((await self._get(self._whapi, path))["bot_presence"] or "")

    # -- the gateway ------------------------------------------------------------------------------

    async def webhook(self, url: str = "", **manners: object) -> None:
        """Point the gateway's webhook somewhere, or change how it delivers."""
        body = {"url": url, **manners} if url else manners
        await self._post(self._whapi, "/_sim/webhook", body)

    async def deliver(self, body: object) -> None:
        """Let the gateway deliver a body as it is."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        answer = await self._whapi.post("/_sim/deliver", content=content)
        assert answer.status_code == httpx2.codes.OK, answer.text

    async def delivered(self) -> None:
        """Return when the gateway has no webhook left that was not answered with 200."""
        path = f"/_sim/queue?wait=1&timeout={PATIENCE}"
        assert (await self._get(self._whapi, path))["pending"] == 0

    async def retry_webhooks(self) -> None:
        """Let the gateway deliver at once what waits for its delay."""
        await self._post(self._whapi, "/_sim/queue/retry", {})

    # -- faults -----------------------------------------------------------------------------------

    async def break_openai(self, match: str, kind: str, **more: object) -> None:
        """Switch a fault of OpenAI's on."""
        await self._post(self._openai, "/_sim/faults", [{"match": match, "kind": kind, **more}])

    async def break_whapi(self, match: str, kind: str, **more: object) -> None:
        """Switch a fault of the gateway's on."""
        await self._post(self._whapi, "/_sim/faults", [{"match": match, "kind": kind, **more}])

    async def struck(self, match: str) -> int:
        """Return how often the gateway's faults with this match struck."""
        answer = await self._whapi.get("/_sim/faults")
        return sum(
            rule.get("struck", 0) for rule in answer.json()["faults"] if rule["match"] == match
        )

    async def mend(self) -> int:
        """Switch all faults off; return how often they struck."""
        struck = 0
        for client in (self._openai, self._whapi):
            answer = await client.delete("/_sim/faults")
            struck += answer.json()["struck"]
        return struck

    async def pace(self, mean_ms: float) -> None:
        """Let OpenAI take so long for an answer, from the next one on."""
        await self._post(self._openai, "/_sim/latency", {"mean_ms": mean_ms, "spread": 0.0})

    async def report(self, *totals: int) -> None:
        """Let OpenAI report so many tokens for its next answers."""
        await self._post(self._openai, "/_sim/usage", list(totals))

    async def conversation(self) -> str:
        """Make a conversation at OpenAI, as an operator might; return its id."""
        made = await self._openai.post(
            "/v1/conversations", json={}, headers={"authorization": "Bearer test"}
        )
        return str(made.json()["id"])

    async def openai_waits(self, query: str) -> Json:
        """Wait for `active=N`, `billed=N` or `idle=1` at OpenAI."""
        seen = await self._get(self._openai, f"/_sim/wait?{query}&timeout={PATIENCE}")
        assert seen["met"], f"OpenAI never had {query}"
        return seen

    async def lose(self, conversation: str) -> None:
        """Let OpenAI forget a conversation."""
        await self._post(self._openai, f"/_sim/conversations/{conversation}/lose", {})

    async def items(self, conversation: str) -> list[Json]:
        """Return what a conversation holds, oldest first."""
        path = f"/v1/conversations/{conversation}/items?order=asc&limit=100"
        answer = await self._openai.get(path, headers={"authorization": "Bearer test"})
        assert answer.status_code == httpx2.codes.OK, answer.text
        found: list[Json] = answer.json()["data"]
        return found

    # -- accounts ---------------------------------------------------------------------------------

    async def openai_account(self) -> OpenAIAccount:
        """What OpenAI says that it did."""
        answer = await self._openai.get("/_sim/account")
        return msgspec.json.decode(answer.content, type=OpenAIAccount)

    async def whapi_account(self) -> WhapiAccount:
        """What the gateway says that it did."""
        answer = await self._whapi.get("/_sim/account")
        return msgspec.json.decode(answer.content, type=WhapiAccount)

    @staticmethod
    async def _get(client: httpx2.AsyncClient, path: str) -> Json:
        answer = await client.get(path)
        assert answer.status_code == httpx2.codes.OK, answer.text
        found: Json = answer.json()
        return found

    @staticmethod
    async def _post(client: httpx2.AsyncClient, path: str, body: object) -> Json:
        answer = await client.post(path, json=body)
        assert answer.status_code == httpx2.codes.OK, answer.text
        found: Json = answer.json()
        return found


class Said(msgspec.Struct, frozen=True):
    """A message that a test sent."""

    phone: str
    id: str
    token: str
    text: str
