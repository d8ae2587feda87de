"""What the gateway hears: what is acknowledged is durable, and what is not comes again."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import httpx2
import msgspec
import pytest

from app.aggregates import events as e
from eventstore.errors import EventStoreError
from eventstore.sqlite import SQLiteLog
from eventstore.store import Beat
from eventstore.types import Append, Appended, Snapshot
from eventstore.writer import Writer
from tests.integration.turns.stage import Stage
from tests.integration.turns.test_facts import envelope, text

ANA = "15550107001"
SECRET = {"x-hilo-secret": "of-the-channel"}


def body(stage: Stage, number: int) -> bytes:
    """A webhook with one message that wants an answer."""
    token = stage.outside.token(ANA)
    return msgspec.json.encode(envelope(text(ANA, f"door-{number}", f"hola {token}")))


async def test_whoever_does_not_know_the_secret_is_not_heard(stage: Stage) -> None:
    await stage.open(webhook_secret=SECRET["x-hilo-secret"])
    message = body(stage, 1)
    for headers in ({}, {"x-hilo-secret": "guessed"}):
        answer = await stage.post(message, **headers)
        assert answer.status_code == httpx2.codes.UNAUTHORIZED
        assert answer.headers["content-type"] == "application/problem+json"
    assert stage.story().count(e.MessageReceived) == 0
    assert (await stage.post(message, **SECRET)).status_code == httpx2.codes.OK
    await stage.settled()


async def test_what_is_too_large_or_no_json_is_refused(stage: Stage) -> None:
    await stage.open()
    large = await stage.post(b" " * (1024 * 1024 + 1))
    assert large.status_code == httpx2.codes.CONTENT_TOO_LARGE
    for garbage in (b"", b"{", b"[]", b'"messages"', b"\xff\xfe"):
        answer = await stage.post(garbage)
        assert answer.status_code == httpx2.codes.BAD_REQUEST
        assert answer.json()["type"] == "/problems/unreadable-webhook"
    await stage.settled()


async def test_the_webhook_of_the_readme_is_one_message_however_often_it_is_sent(
    stage: Stage,
) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    (sent,) = re.findall(r"^curl \S+/webhooks/whapi -d '(.*?)'$", readme, re.DOTALL | re.MULTILINE)
    await stage.open(quiet_seconds=3600, longest_seconds=7200)
    for _ in range(2):
        assert (await stage.post(sent.encode())).status_code == httpx2.codes.OK
    story = await stage.has(e.MessageReceived)
    assert story.count(e.MessageReceived) == 1


class SlowDisk:
    """Holds the commits of a store until it is told to go on."""

    def __init__(self, stage: Stage) -> None:
        self._gate = threading.Event()
        self._append_batch = stage.bot.log.append_batch
        assert isinstance(stage.bot.writer, Writer)
        stage.bot.writer._store = self  # type: ignore[assignment]

    def append_batch(
        self,
        appends: Sequence[Append],
        snapshots: Sequence[Snapshot] = (),
        beats: Sequence[Beat] = (),
    ) -> list[Appended | EventStoreError]:
        assert self._gate.wait(20)
        return self._append_batch(appends, snapshots, beats)

    def go_on(self) -> None:
        self._gate.set()


async def test_a_full_queue_says_come_again_and_loses_nothing(stage: Stage) -> None:
    await stage.open(queue=3, beat_seconds=60, dead_seconds=600, quiet_seconds=0.3)
    disk = SlowDisk(stage)
    bodies = [body(stage, number) for number in range(8)]
    asking = [asyncio.create_task(stage.post(one)) for one in bodies]
    done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    refused = next(iter(done)).result()
    assert refused.status_code == httpx2.codes.SERVICE_UNAVAILABLE
    assert int(refused.headers["retry-after"]) >= 1
    assert waiting
    disk.go_on()
    answers = [await one for one in asking]
    assert {answer.status_code for answer in answers} == {200, 503}
    acknowledged = sum(answer.status_code == httpx2.codes.OK for answer in answers)
    assert stage.story().count(e.MessageReceived) == acknowledged
    for one, answer in zip(bodies, answers, strict=True):
        if answer.status_code != httpx2.codes.OK:
            assert (await stage.post(one)).status_code == httpx2.codes.OK
    story = await stage.settled()
    assert story.count(e.MessageReceived) == len(bodies)


async def test_a_full_disk_says_come_again_and_works_again_when_there_is_room(
    stage: Stage,
) -> None:
    outside = await stage.open(quiet_seconds=0.2)
    assert (await stage.post(body(stage, 0))).status_code == httpx2.codes.OK
    await outside.reads(ANA)
    await stage.settled()
    log = stage.bot.log
    assert isinstance(log, SQLiteLog)
    writer = log._writer  # the connection that appends
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count={pages}")
    acknowledged = 0
    bodies = [body(stage, number) for number in range(1, 200)]
    for count, one in enumerate(bodies):
        answer = await stage.post(one)
        if answer.status_code != httpx2.codes.OK:
            break
        acknowledged = count + 1
    assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["type"] == "/problems/log-unavailable"
    assert stage.story().count(e.MessageReceived) >= 1 + acknowledged
    writer.execute("PRAGMA max_page_count=1073741823")
    again = bodies[acknowledged]
    assert (await stage.post(again)).status_code == httpx2.codes.OK
    for unsent in bodies[acknowledged + 1 :]:
        found = re.search(rb"tok-[a-z]{8}", unsent)
        assert found is not None
        del outside.asked[found[0].decode()]
    await stage.settled()


async def test_no_personal_data_is_readable_in_any_file(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    outside = await stage.open(apology="Perdón por la espera.")
    await outside.break_openai("POST /v1/responses", "status", status=500, times=2)
    await outside.break_whapi("POST /messages/text", "status", status=500)
    said = await outside.say(ANA, "soy Ana Secreta de Calle Luna", from_name="Ana Secreta")
    await outside.phone(ANA, "image", text="mi casa en Calle Luna")
    await outside.reads(ANA)
    await outside.edit(said, "mejor Calle Sol")
    await outside.deliver(envelope({"id": "malo-15550107001", "from": {}, "chat_id": ANA}))
    await outside.say(ANA, "en grupo", expect="silence", chat_id="120363000000000002@g.us")
    await outside.delivered()
    await stage.settled()
    ids = {shown.id for shown in (await outside.whapi_account()).chats[f"{ANA}@s.whatsapp.net"]}
    secrets = [ANA, "Secreta", "Calle Luna", "Calle Sol", "en grupo", said.token, said.id, *ids]
    during = files(stage.directory)
    await stage.stop_bot()
    after = files(stage.directory)
    assert {"log.db", "log.db-wal", "keys.db", "todo.db", "views.db"} <= {p.name for p in during}
    shown = "".join(capfd.readouterr()).encode()
    for name, content in [*during.items(), *after.items(), (Path("terminal"), shown)]:
        readable = [secret for secret in secrets if secret.encode() in content]
        assert readable == [], f"{name} shows {readable}"


def files(directory: Path) -> dict[Path, bytes]:
    """Return every file and its bytes."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
