"""Simulators on loopback for one test, gateways that talk to them, and a server that misbehaves."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from app.gateways import OpenAIProvider, OpenAISettings, WhapiMessenger, WhapiSettings
from app.simulators.openai import OpenAISimulator
from app.simulators.serving import listen, serving
from app.simulators.whapi import WhapiSimulator

KEY = "sk-for-tests"
TOKEN = "token-for-tests"
CHAT = "15550100042@s.whatsapp.net"
TEXT = "me llamo Alba Ficticia y vivo en la calle Luna"
USER = "pseudonym-of-somebody"

OpenProvider = Callable[[OpenAISettings], OpenAIProvider]
OpenMessenger = Callable[[WhapiSettings], WhapiMessenger]


class Scripted:
    """An ASGI application that answers everything with the same bytes, in the same pieces."""

    def __init__(
        self,
        *pieces: bytes,
        status: int = 200,
        content_type: str = "application/json",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.pieces = pieces
        self.status = status
        self.headers = [(b"content-type", content_type.encode()), *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Starlette()(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def events(*given: tuple[str, Mapping[str, object]]) -> tuple[bytes, ...]:
    """Server-sent events as OpenAI writes them."""
    return tuple(
        b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))
        for kind, fields in given
    )


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def openai_sim() -> OpenAISimulator:
    return OpenAISimulator(key=KEY, seed=1)


@pytest.fixture
async def openai_settings(openai_sim: OpenAISimulator, stack: AsyncExitStack) -> OpenAISettings:
    url = await stack.enter_async_context(serving(openai_sim))
    return OpenAISettings(
        model="gpt-5.4-mini", base_url=f"{url}/v1", run_seconds=5.0, call_seconds=5.0
    )


@pytest.fixture
def open_provider(stack: AsyncExitStack) -> OpenProvider:
    def opened(settings: OpenAISettings) -> OpenAIProvider:
        provider = OpenAIProvider(settings, api_key=KEY)
        stack.push_async_callback(provider.close)
        return provider

    return opened


@pytest.fixture
def provider(open_provider: OpenProvider, openai_settings: OpenAISettings) -> OpenAIProvider:
    return open_provider(openai_settings)


@pytest.fixture(params=["background", "stream"])
def either(
    request: pytest.FixtureRequest, open_provider: OpenProvider, openai_settings: OpenAISettings
) -> OpenAIProvider:
    """A provider in each of the two modes."""
    return open_provider(msgspec.structs.replace(openai_settings, mode=request.param))


@pytest.fixture
def whapi_sim() -> WhapiSimulator:
    return WhapiSimulator(token=TOKEN, seed=1)


@pytest.fixture
async def whapi_settings(whapi_sim: WhapiSimulator, stack: AsyncExitStack) -> WhapiSettings:
    url = await stack.enter_async_context(serving(whapi_sim))
    return WhapiSettings(base_url=url, channel="SIMULA-H1L0X", send_seconds=5.0)


@pytest.fixture
def open_messenger(stack: AsyncExitStack) -> OpenMessenger:
    def opened(settings: WhapiSettings) -> WhapiMessenger:
        messenger = WhapiMessenger(settings, token=TOKEN)
        stack.push_async_callback(messenger.close)
        return messenger

    return opened


@pytest.fixture
def messenger(open_messenger: OpenMessenger, whapi_settings: WhapiSettings) -> WhapiMessenger:
    return open_messenger(whapi_settings)


@pytest.fixture
def dead_url() -> str:
    """An address of this machine where nobody listens."""
    sock = listen()
    port = sock.getsockname()[1]
    sock.close()
    return f"http://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def nothing_personal_is_printed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> Iterator[None]:
    """Whatever a test does, with all logs on, shows no text, number, key or token of its own."""
    logging.getLogger().setLevel(logging.DEBUG)
    yield
    printed = capsys.readouterr()
    logged = [
        record.getMessage()
        for record in caplog.get_records("call")
        if not record.name.startswith("uvicorn")  # the simulators, which are not under test
    ]
    assert_impersonal(printed.out + printed.err + "".join(logged))


def assert_impersonal(shown: str | BaseException) -> None:
    """Fail if a text, or an error with all that its traceback would show, gives somebody away."""
    if isinstance(shown, BaseException):
        shown = "".join(traceback.format_exception(shown))
    for secret in (KEY, TOKEN, CHAT, CHAT.partition("@")[0], TEXT, "Ficticia", USER):
        assert secret not in shown
