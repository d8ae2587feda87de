"""What a gateway is answered, before FastAPI sees anything."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from app.api.desks import Desk, Desks, Take
from app.api.ingress import WebhookIngress
from app.conversation.facts import NOTHING_ODD, Delivery, EditFact, Odd, OtherFact
from eventstore.errors import LogUnavailable, OutcomeUnknown, QueueFull
from tests.unit.api.asgi import Answer, Exchange, ask
from tests.unit.api.bodies import CHANNEL, PHONE, body, message

HEADER = "X-Hilo-Secret"
SECRETS = ("old-kayak", "new-kayak")
GOOD = [("X-Hilo-Secret", "new-kayak")]
HELLO = body(messages=[message()])
LIMIT = 2_000


class Door:
    """An ingress with a bot behind it that records, or fails as it is told."""

    def __init__(
        self,
        *,
        header: str = HEADER,
        secrets: tuple[str, ...] = SECRETS,
        loopback: bool = False,
        error: Exception | None = None,
        odd: Odd = NOTHING_ODD,
    ) -> None:
        self.deliveries: list[Delivery] = []
        self.outcomes: list[str] = []
        self.passed: list[str] = []
        self._error = error
        self._odd = odd
        self.ingress = WebhookIngress(
            self._app,
            Desks(
                [Desk(self._take, channel=CHANNEL, secrets=secrets)],
                header=header,
                loopback=loopback,
            ),
            max_body=LIMIT,
            count=self.outcomes.append,
        )

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.passed.append(scope["type"])
        if scope["type"] == "http":
            start = {"type": "http.response.start", "status": 204}
            await send({**start, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    async def _take(self, delivery: Delivery) -> Odd:
        if self._error is not None:
            raise self._error
        self.deliveries.append(delivery)
        return self._odd

    async def ask(self, *args: object, **options: object) -> Answer:
        options.setdefault("headers", GOOD)
        return await ask(self.ingress, *args, **options)


def desks(take: Take) -> Desks:
    return Desks([Desk(take, secrets=SECRETS)], header=HEADER)


def is_problem(answer: Answer, status: int, outcome: str) -> bool:
    document = answer.json
    return (
        answer.status == document["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
        and document["type"] == f"/problems/{outcome.replace('_', '-')}"
        and {"title", "detail"} <= document.keys()
    )


# --- Taken ----------------------------------------------------------------------------------------


async def test_a_webhook_is_acknowledged_with_the_number_of_its_facts() -> None:
    door = Door()
    answer = await door.ask(body(messages=[message(id=f"n{n}-gA") for n in range(3)]))
    assert (answer.status, answer.json) == (200, {"received": 3})
    assert answer.headers["content-type"] == "application/json"
    assert [len(delivery.facts) for delivery in door.deliveries] == [3]
    assert door.outcomes == ["received"]


@pytest.mark.parametrize("odd", [Odd(1, 0), Odd(0, 2), Odd(2_000, 2_000)])
async def test_whoever_sends_what_no_turn_will_look_at_is_told_so(odd: Odd) -> None:
    answer = await Door(odd=odd).ask(HELLO)
    assert answer.status == 200
    assert answer.json == {"received": 1, "rejected": odd.rejected, "other": odd.other}
    assert int(answer.headers["content-length"]) == len(answer.body)


async def test_nothing_is_acknowledged_before_it_is_durable() -> None:
    durable = asyncio.Event()

    async def take(_: Delivery) -> Odd:
        await durable.wait()
        return NOTHING_ODD

    door = Door()
    ingress = WebhookIngress(door.ingress, desks(take))
    exchange = Exchange(HELLO, headers=GOOD)
    task = asyncio.create_task(exchange.run(ingress))
    for _ in range(5):
        await asyncio.sleep(0)
    assert exchange.sent == []
    durable.set()
    answer = await task
    assert answer is not None
    assert answer.status == 200


async def test_a_body_may_come_in_pieces() -> None:
    door = Door()
    answer = await door.ask([HELLO[:10], HELLO[10:50], HELLO[50:], b""])
    assert answer.json == {"received": 1}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/webhooks/whapi/messages/put"),
        ("POST", "/webhooks/whapi//messages/put/"),
        ("PUT", "/webhooks/whapi/messages"),
        ("PUT", "/webhooks/whapi"),
        ("PUT", "/webhooks/whapi/"),
    ],
)
async def test_all_delivery_modes_are_served(method: str, path: str) -> None:
    door = Door()
    whole = HELLO.replace(b',"event":{"type":"messages","event":"post"}', b"")
    assert whole != HELLO
    assert (await door.ask(whole, method=method, path=path)).status == 200
    assert isinstance(door.deliveries[0].facts[0], EditFact)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_the_verb_is_the_method_where_nothing_else_says(method: str) -> None:
    door = Door()
    await door.ask(b'{"labels":[1],"channel_id":"%b"}' % CHANNEL.encode(), method=method)
    assert door.deliveries[0].facts == (OtherFact(kind=f"labels.{method.lower()}", raw=b"[1]"),)


async def test_everything_else_goes_to_the_application() -> None:
    door = Door()
    for path in ("/", "/healthz", "/webhooks", "/webhookswhapi", "/update-user"):
        assert (await door.ask(path=path, method="GET", headers=())).status == 204
    for kind in ("lifespan", "websocket"):
        exchange = Exchange()
        exchange.scope = {"type": kind, "path": "/webhooks/whapi"}
        await exchange.run(door.ingress)
    assert door.passed == ["http"] * 5 + ["lifespan", "websocket"]
    assert door.outcomes == []


# --- Refused --------------------------------------------------------------------------------------


async def test_a_body_of_too_many_items_is_refused() -> None:
    door = Door()
    ingress = WebhookIngress(door.ingress, desks(door._take))
    removed = body(messages_removed=[str(number) for number in range(2_001)])
    answer = await ask(ingress, removed, headers=GOOD)
    assert is_problem(answer, 413, "too_many_items")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-Hilo-Secret", "")],
        [("X-Hilo-Secret", "new-kaya")],
        [("X-Hilo-Secret", "new-kayak ")],
        [("X-Hilo-Secret", "ñew-kayak")],
        [("X-Other", "new-kayak")],
        [("Authorization", "Bearer new-kayak")],
    ],
)
async def test_a_webhook_without_the_secret_is_not_authentic(
    headers: list[tuple[str, str]],
) -> None:
    door = Door()
    exchange = Exchange(HELLO, headers=headers)
    answer = await exchange.run(door.ingress)
    assert answer is not None
    assert is_problem(answer, 401, "unauthentic_webhook")
    assert exchange.read == 0
    assert door.deliveries == []
    assert door.outcomes == ["unauthentic_webhook"]


@pytest.mark.parametrize("value", SECRETS)
async def test_during_a_rotation_both_secrets_are_good(value: str) -> None:
    assert (await Door().ask(HELLO, headers=[("x-hilo-SECRET", value)])).status == 200


async def test_on_loopback_no_secret_is_needed_but_a_given_one_counts() -> None:
    assert (await Door(secrets=(), loopback=True).ask(HELLO, headers=())).status == 200
    assert (await Door(loopback=True).ask(HELLO, headers=())).status == 401


def test_without_a_secret_only_loopback_is_served() -> None:
    with pytest.raises(ValueError, match="loopback"):
        Door(secrets=())


@pytest.mark.parametrize(("header", "secrets"), [("", ("a",)), ("X", ("",)), ("X", ("a", ""))])
def test_an_empty_secret_is_no_secret(header: str, secrets: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="value"):
        Door(header=header, secrets=secrets)


def test_a_secret_is_not_shown() -> None:
    desk = Desk(Door()._take, secrets=SECRETS)
    assert "kayak" not in f"{desk!r} {desk}"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
async def test_webhooks_cannot_be_fetched(method: str) -> None:
    answer = await Door().ask(method=method)
    assert is_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, PUT, PATCH, DELETE"


@pytest.mark.parametrize(
    "path", ["/webhooks/", "/webhooks/telegram", "/webhooks/whapi/a/b/c", "/webhooks//"]
)
async def test_there_are_no_other_webhooks(path: str) -> None:
    assert is_problem(await Door().ask(HELLO, path=path), 404, "no_such_webhook")


async def test_a_channel_that_no_bot_serves_is_named_a_mistake_without_repeating_it() -> None:
    door = Door()
    answer = await door.ask(HELLO.replace(CHANNEL.encode(), b"STRANGER-1"))
    assert is_problem(answer, 404, "unknown_channel")
    assert b"STRANGER-1" not in answer.body
    assert door.outcomes == ["unknown_channel"]


@pytest.mark.parametrize("raw", [b"", b"{", b"hello", b"[]", b"7", b"[" * 1_500])
async def test_what_is_no_envelope_is_refused(raw: bytes) -> None:
    assert is_problem(await Door().ask(raw), 400, "unreadable_webhook")


async def test_an_announced_size_beyond_the_limit_is_refused_unread() -> None:
    for length in (str(LIMIT + 1), "9" * 5_000):
        exchange = Exchange(HELLO, headers=[*GOOD, ("Content-Length", length)])
        answer = await exchange.run(Door().ingress)
        assert answer is not None
        assert is_problem(answer, 413, "body_too_large")
        assert exchange.read == 0


@pytest.mark.parametrize("length", ["10", "-5", "many", None])
async def test_a_size_that_is_a_lie_does_not_help(length: str | None) -> None:
    headers = [*GOOD, ("Content-Length", length)] if length else GOOD
    whole = await Door().ask(b" " * (LIMIT + 1), headers=headers)
    assert is_problem(whole, 413, "body_too_large")
    exchange = Exchange([b" " * 500] * 1_000, headers=headers)
    pieces = await exchange.run(Door().ingress)
    assert pieces is not None
    assert is_problem(pieces, 413, "body_too_large")
    assert exchange.read == 5


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    padded = HELLO + b" " * (LIMIT - len(HELLO))
    headers = [*GOOD, ("Content-Length", str(LIMIT))]
    assert (await Door().ask(padded, headers=headers)).status == 200
    assert (await Door().ask([padded[:7], padded[7:]], headers=headers)).status == 200


@pytest.mark.parametrize("pieces", [[None], [b"{", None], [b"{", b'"a"', None]])
async def test_a_client_that_goes_away_leaves_nothing_behind(pieces: list[bytes | None]) -> None:
    door = Door()
    assert await Exchange(pieces, headers=GOOD).run(door.ingress) is None
    assert door.deliveries == []
    assert door.outcomes == ["disconnected"]


# --- Failed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (QueueFull(9, retry_after=3), "3"),
        (LogUnavailable("the disk is full"), "5"),
        (OutcomeUnknown("cut during COMMIT"), "5"),
    ],
)
async def test_while_the_log_cannot_be_written_the_gateway_is_asked_to_come_again(
    error: Exception, seconds: str
) -> None:
    door = Door(error=error)
    answer = await door.ask(HELLO)
    assert is_problem(answer, 503, "log_unavailable")
    assert answer.headers["retry-after"] == seconds
    assert door.outcomes == ["log_unavailable"]


async def test_an_unexpected_error_is_logged_by_type_and_place_and_never_by_its_message() -> None:
    door = Door(error=RuntimeError(f"cannot handle {PHONE}: is the blue kayak free?"))
    with capture_logs() as lines:
        answer = await door.ask(HELLO)
    assert is_problem(answer, 500, "unexpected")
    (line,) = lines
    assert (line["event"], line["error"]) == ("WEBHOOK_ERROR", "RuntimeError")
    assert "test_ingress.py" in line["where"]
    for said in (str(lines), answer.body.decode()):
        assert PHONE not in said
        assert "kayak" not in said


async def test_a_cancelled_request_is_not_answered() -> None:
    async def take(_: Delivery) -> Odd:
        await asyncio.Event().wait()
        return NOTHING_ODD

    ingress = WebhookIngress(Door().ingress, desks(take))
    exchange = Exchange(HELLO, headers=GOOD)
    task = asyncio.create_task(exchange.run(ingress))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert exchange.sent == []
