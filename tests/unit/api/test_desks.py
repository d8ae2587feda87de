"""Several bots behind one door: each webhook goes to its own bot, and no secret opens another."""

from __future__ import annotations

import pytest
from starlette.types import Receive, Scope, Send

from app.api.desks import Desk, Desks, Take
from app.api.ingress import WebhookIngress
from app.conversation.facts import NOTHING_ODD, Delivery, Odd
from tests.unit.api.asgi import Answer, ask
from tests.unit.api.bodies import CHANNEL, body, message

HEADER = "X-Hilo-Secret"


async def nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise AssertionError


class Doors:
    """Three bots: two with channels, one that is found by path only."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.outcomes: list[str] = []
        seats = [
            Desk(self._taker("sales"), "sales", "SALES-1", ("sales-kayak",)),
            Desk(self._taker("help"), "help", "HELP-1", ("help-canoe", "help-raft")),
            Desk(self._taker("quiet"), "quiet", "", ("quiet-ship",)),
        ]
        desks = Desks(seats, header=HEADER)
        self.ingress = WebhookIngress(nothing, desks, count=self.outcomes.append)

    def _taker(self, bot: str) -> Take:
        async def take(_: Delivery) -> Odd:
            self.taken.append(bot)
            return NOTHING_ODD

        return take

    async def ask(self, channel: str, secret: str, path: str = "/webhooks/whapi") -> Answer:
        content = body(messages=[message()]).replace(CHANNEL.encode(), channel.encode())
        return await ask(self.ingress, content, path=path, headers=[(HEADER, secret)])


@pytest.mark.parametrize(
    ("channel", "secret", "path", "bot"),
    [
        ("SALES-1", "sales-kayak", "/webhooks/whapi", "sales"),
        ("HELP-1", "help-raft", "/webhooks/whapi", "help"),
        ("HELP-1", "help-canoe", "/webhooks/whapi/messages/post", "help"),
        ("HELP-1", "help-canoe", "/webhooks/help/whapi", "help"),
        ("HELP-1", "help-canoe", "/webhooks/help/whapi/messages/post", "help"),
        ("ANY-1", "quiet-ship", "/webhooks/quiet/whapi", "quiet"),
        ("", "quiet-ship", "/webhooks/whapi", "quiet"),
    ],
)
async def test_a_webhook_finds_its_bot(channel: str, secret: str, path: str, bot: str) -> None:
    doors = Doors()
    assert (await doors.ask(channel, secret, path)).status == 200
    assert doors.taken == [bot]


@pytest.mark.parametrize(
    ("channel", "secret", "path"),
    [
        ("HELP-1", "sales-kayak", "/webhooks/whapi"),
        ("HELP-1", "sales-kayak", "/webhooks/help/whapi"),
        ("SALES-1", "sales-kayak", "/webhooks/help/whapi"),
        ("SALES-1", "sales-kayak", "/webhooks/nobody/whapi"),
        ("SALES-1", "", "/webhooks/whapi"),
        ("STRANGER-1", "sales-kayakk", "/webhooks/whapi"),
    ],
)
async def test_a_secret_that_is_good_for_one_bot_opens_no_other(
    channel: str, secret: str, path: str
) -> None:
    doors = Doors()
    assert (await doors.ask(channel, secret, path)).status == 401
    assert doors.taken == []
    assert doors.outcomes == ["unauthentic_webhook"]


async def test_whoever_is_refused_is_told_that_the_path_may_name_no_bot_but_not_which_do() -> None:
    known = await Doors().ask("HELP-1", "wrong", "/webhooks/help/whapi")
    unknown = await Doors().ask("HELP-1", "wrong", "/webhooks/nobody/whapi")
    assert known.body == unknown.body
    assert "A path that names no bot" in known.json["detail"]


@pytest.mark.parametrize(
    ("channel", "secret", "path", "title"),
    [
        ("STRANGER-1", "sales-kayak", "/webhooks/whapi", "No bot serves this channel"),
        ("ANY-1", "quiet-ship", "/webhooks/whapi", "No bot serves this channel"),
        (
            "SALES-1",
            "help-raft",
            "/webhooks/help/whapi",
            "The bot of this path serves another channel",
        ),
    ],
)
async def test_an_unknown_channel_goes_to_no_bot(
    channel: str, secret: str, path: str, title: str
) -> None:
    doors = Doors()
    answer = await doors.ask(channel, secret, path)
    assert (answer.status, answer.json["type"]) == (404, "/problems/unknown-channel")
    assert answer.json["title"] == title
    assert doors.taken == []


def test_bots_share_neither_name_nor_channel_nor_secret() -> None:
    take = Doors()._taker("x")
    one = Desk(take, "one", "ONE-1", ("kayak",))
    for other, what in (
        (Desk(take, "one", "TWO-1", ("canoe",)), "called 'one'"),
        (Desk(take, "two", "ONE-1", ("canoe",)), "same channel"),
        (Desk(take, "two", "TWO-1", ("canoe", "kayak")), "same webhook secret"),
        (Desk(take, "two", "TWO-1"), "loopback"),
    ):
        with pytest.raises(ValueError, match=what):
            Desks([one, other], header=HEADER)
