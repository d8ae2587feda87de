"""Both simulators on loopback, with the clients that talk to them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx2
import pytest
from openai import AsyncOpenAI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.simulators import OpenAISimulator, WhapiSimulator, serving
from app.simulators.pulse import Pulse

Json = dict[str, object]
DEADLINE = 10.0


class Lab:
    """One simulator's own paths: faults, waits, the account."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str) -> Json:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def post(self, path: str, **body: object) -> Json:
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def fault(self, match: str, kind: str, **more: object) -> None:
        answer = await self.http.post("/_sim/faults", json=[{"match": match, "kind": kind, **more}])
        assert answer.status_code == 200, answer.text


@dataclass
class Hook:
    """A bot's webhook: what it was sent, and how it answers."""

    url: str = ""
    got: list[tuple[str, str, Json]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    changed: Pulse = field(default_factory=Pulse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        request = Request(scope, receive)
        self.got.append((request.method, request.url.path, await request.json()))
        self.headers.append(dict(request.headers))
        status = self.answers.pop(0) if self.answers else 200
        await Response(status_code=status)(scope, receive, send)
        self.changed.beat()

    async def until(self, count: int) -> None:
        assert await self.changed.until(lambda: len(self.got) >= count, DEADLINE), self.got

    def events(self, kind: str) -> list[Json]:
        return [
            body
            for _, _, body in self.got
            if isinstance(body["event"], dict) and body["event"]["type"] == kind
        ]


@pytest.fixture
async def brain() -> AsyncIterator[Lab]:
    async with serving(OpenAISimulator(seed=7)) as url, httpx2.AsyncClient(base_url=url) as http:
        yield Lab(http)


@pytest.fixture
async def client(brain: Lab) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{brain.http.base_url}/v1",
        api_key="sk-of-nobody",
        max_retries=0,
        timeout=DEADLINE,
    ) as made:
        yield made


@pytest.fixture
async def gate() -> AsyncIterator[Lab]:
    async with serving(WhapiSimulator(seed=7)) as url, httpx2.AsyncClient(base_url=url) as http:
        yield Lab(http)


@pytest.fixture
async def hook(gate: Lab) -> AsyncIterator[Hook]:
    made = Hook()
    async with serving(made) as url:
        made.url = url
        await gate.post("/_sim/webhook", url=url, first_delay=0.02)
        yield made


@pytest.fixture
async def tasks() -> AsyncIterator[set[asyncio.Task[object]]]:
    """Requests left open by a test; cancelled at its end."""
    opened: set[asyncio.Task[object]] = set()
    yield opened
    for task in opened:
        task.cancel()
    await asyncio.gather(*opened, return_exceptions=True)
