"""One turn's own overhead: from due to handed over, with nobody to wait for.

`hilo serve` and the simulators of OpenAI and Whapi, each a process of its own, at zero latency. A
message is due at once; what is measured is the log's own clock between `MessageReceived` and
`MessageSent`, so the simulators' HTTP handlers are in it, and the sender of the webhook is not.
"""

from __future__ import annotations

import http.client
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final
from urllib.parse import urlsplit

import msgspec

from app.aggregates.events import MessageReceived, MessageSent
from bench.datasets import DataSet, append_history, thousands
from bench.load.__main__ import requests_of
from bench.load.client import Load
from bench.measuring import Row, compare, limit
from bench.people import EVENTS_PER_TURN, Person, TurnMaker, open_keyring
from bench.plan import Plan
from bench.rows.webhook import PATH
from bench.servers import ServerFailed, hilo_serve
from eventstore.codec import stored_name
from eventstore.sqlite import SQLiteLog
from eventstore.types import Version

TURNS: Final = 60
HISTORY: Final = 2000
WARM: Final = 3
_PATIENCE: Final = 30.0
_SIMULATED: Final = {
    "OPENAI_BASE_URL": "",
    "WHAPI_BASE_URL": "",
    "HILO_QUIET_SECONDS": "0",
    "HILO_LONGEST_SECONDS": "0",
}


def overhead(plan: Plan) -> list[Row]:
    """p50 of a turn, for somebody new and for somebody with a long history, turn by turn."""
    turns, history = plan.work(TURNS, least=2), plan.work(HISTORY, least=5)
    data = plan.sets.copy(plan.sets.empty)
    new, old = data.people[0], data.people[1]
    _give_history(data, old, history)
    with hilo_serve(data, _SIMULATED) as url, closing(SQLiteLog(data.directory / "log.db")) as log:
        chats = _Chat(url, log, new), _Chat(url, log, old)
        for chat in chats * WARM:
            chat.turn()
        spent = [(chats[0].turn(), chats[1].turn()) for _ in range(turns)]
    fresh = statistics.median(mine for mine, _ in spent)
    slowest = max(mine for mine, _ in spent)
    data_set = f"{thousands(turns)} turns each, interleaved"
    return [
        limit(
            "turn",
            "one turn's own overhead, due → handed over, p50",
            fresh,
            target=10,
            unit="ms",
            data_set=data_set,
            notes=f"slowest {slowest:.1f} ms; the simulators' HTTP handlers are in it",
        ),
        limit(
            "turn-old",
            f"the same after {thousands(history)} turns of history, p50",
            statistics.median(old for _, old in spent),
            target=10,
            unit="ms",
            data_set=data_set,
        ),
        compare(
            "turn-growth",
            "with that history against without",
            [(with_history, without) for without, with_history in spent],
            peer_name="a new user",
            target=1.25,
            better="lower",
            unit="ms",
            data_set=data_set,
        ),
    ]


def _give_history(data: DataSet, person: Person, turns: int) -> None:
    with closing(open_keyring(data.directory)) as keyring:
        maker = TurnMaker(keyring, seed=23)
        steps = (
            (person, maker.exchange(person).record, EVENTS_PER_TURN) for _ in itertools.count()
        )
        with closing(SQLiteLog(data.directory / "log.db", server=True)) as log:
            append_history(log, steps, turns * EVENTS_PER_TURN)


class _Chat:
    """Somebody who writes one message at a time and waits for the answer."""

    def __init__(self, url: str, log: SQLiteLog, person: Person) -> None:
        self._where = urlsplit(url)
        self._log = log
        self._stream = person.stream
        self._requests: Iterator[bytes] = requests_of(
            Load(url=url + PATH, seconds=0, tag=person.phone[-6:], phones=(person.phone,))
        )

    def turn(self) -> float:
        """Write, wait for the reply, return the milliseconds between due and handed over."""
        before = self._log.stream_version(self._stream)
        self._post(next(self._requests).partition(b"\r\n\r\n")[2])
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            time.sleep(0.003)
            took = self._took(before)
            if took is not None:
                return took / 1000
        msg = f"no reply within {_PATIENCE:.0f} s"
        raise ServerFailed(msg)

    def _took(self, after: Version) -> int | None:
        """Microseconds from the message to the send, once both are in the log."""
        at = {
            event.type: event.recorded_at
            for event in self._log.read_stream(self._stream, after=after)
        }
        sent = at.get(stored_name(MessageSent))
        return None if sent is None else sent - at[stored_name(MessageReceived)]

    def _post(self, body: bytes) -> None:
        with closing(
            http.client.HTTPConnection(self._where.hostname or "", self._where.port)
        ) as connection:
            connection.request("POST", PATH, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                problem = msgspec.json.decode(answer.read())
                msg = f"the webhook was refused: {problem}"
                raise ServerFailed(msg)
