"""Several nodes on one PostgreSQL: what a second one adds, what they cost each other.

Each node is a `hilo serve` of its own, and so are the simulators. OpenAI takes a second for an
answer and a node has 40 runs at once, so that runs are the limit and not the processor. Everything
is read from the log, by its own clock.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from app.aggregates.events import MessageSent, RunStarted, TurnTakenOver
from app.conversation.kinds import CODEC
from bench.datasets import thousands
from bench.load.__main__ import requests_of
from bench.load.client import Load
from bench.measuring import Row, compare, limit
from bench.plan import Plan
from bench.postgres import databases
from bench.rows.webhook import PATH
from bench.servers import ROOT, ServerFailed, inherited
from eventstore.codec import stored_name
from eventstore.postgres import PostgresLog
from eventstore.types import Recorded

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Databases

TURNS: Final = 480
RUNS_AT_ONCE: Final = 40
LATENCY_MS: Final = 1000
_DOORS: Final = 8
"""Connections to each node by which people write."""
_PATIENCE: Final = 120.0
_SENT: Final = stored_name(MessageSent)


def second_node(plan: Plan) -> list[Row]:
    """Turns a second of two nodes against one."""
    turns = plan.work(TURNS, least=4)
    rounds = []
    with databases() as server:
        for _ in range(min(plan.rounds, 3)):
            rates = []
            for count in (2, 1):
                with _fleet(plan, server, count) as fleet:
                    rates.append(fleet.rate(turns))
            rounds.append((rates[0], rates[1]))
    row = compare(
        "nodes",
        "turns a second, two nodes",
        rounds,
        peer_name="one node",
        target=1.9,
        unit="turns/s",
        data_set=f"{thousands(turns)} people, {RUNS_AT_ONCE} runs at once a node, OpenAI 1 s",
    )
    return [row]


def lost_claims(plan: Plan) -> list[Row]:
    """Of four nodes' claims, the share that another node had made just before."""
    turns = plan.work(2 * TURNS, least=8)
    with databases() as server, _fleet(plan, server, 4) as fleet:
        fleet.rate(turns)
        won, lost = fleet.count("hilo_claims_won_total"), fleet.count("hilo_claims_lost_total")
    return [
        limit(
            "claims",
            "lost claims, four nodes",
            100 * lost / max(1.0, won + lost),
            target=2,
            unit="%",
            data_set=f"{thousands(turns)} people at once, OpenAI 1 s",
            notes=f"{lost:.0f} of {won + lost:.0f}",
        )
    ]


def take_over(plan: Plan) -> list[Row]:
    """Seconds from a node's kill -9 until another one holds its turn."""
    took = []
    with databases() as server:
        for _ in range(min(plan.rounds, 3)):
            with _fleet(plan, server, 2) as fleet:
                took.append(fleet.seconds_to_take_over())
    return [
        limit(
            "takeover",
            "from a node's kill -9 to its turn being taken over, slowest",
            max(took),
            target=12,
            unit="s",
            data_set="a turn at OpenAI, beats as they are set by default",
            notes=f"median {statistics.median(took):.1f} s",
        )
    ]


class _Fleet:
    """Some nodes, their log, and the people who write to them."""

    def __init__(self, log: PostgresLog, openai: str) -> None:
        self.log = log
        self.openai = openai
        self.urls: list[str] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def rate(self, turns: int) -> float:
        """Let so many people write at once; return answers a second while all nodes have work.

        That is between the first tenth and the last quarter of them: in the end the luck of the
        draw decides which node has one more wave of runs than the others.
        """
        self.write(turns)
        sent = self.until(_SENT, turns)
        first, last = turns // 10, max(1, turns * 3 // 4)
        took = sent[last].recorded_at - sent[first].recorded_at
        return (last - first) / (max(1, took) / 1e6)

    def write(self, people: int) -> None:
        """Let so many people write, some at a time: nodes at work must not wait for the next."""
        phones = tuple(f"34600{number:06}" for number in range(people))
        load = Load(url=self.urls[0] + PATH, seconds=0, tag="000000", phones=phones)
        requests = requests_of(load)
        bodies = [next(requests).partition(b"\r\n\r\n")[2] for _ in range(people)]
        doors = self.urls * _DOORS
        with ThreadPoolExecutor(len(doors)) as pool:
            shares = [bodies[number :: len(doors)] for number in range(len(doors))]
            list(pool.map(_post, doors, shares))

    def until(self, kind: str, count: int) -> list[Recorded]:
        """Return the events of a kind as soon as there are so many."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            found = self.log.read(types=[kind], limit=count)
            if len(found) >= count:
                return found
            time.sleep(0.1)
        msg = f"{len(found)} of {count} {kind} within {_PATIENCE:.0f} s"
        raise ServerFailed(msg)

    def count(self, metric: str) -> float:
        """Return a number of `/metrics`, summed over the nodes."""
        total = 0.0
        for url in self.urls:
            where = urlsplit(url)
            with closing(http.client.HTTPConnection(where.hostname or "", where.port)) as door:
                door.request("GET", "/metrics")
                text = door.getresponse().read().decode()
            for line in text.splitlines():
                if line.startswith((metric + "{", metric + " ")):
                    total += float(line.rpartition(" ")[2])
        return total

    def seconds_to_take_over(self) -> float:
        """Kill the node that is at a turn; return how long it takes until another one is."""
        self.pace(30_000)
        self.write(1)
        (claim,) = self.until(stored_name(RunStarted), 1)
        event = CODEC.decode(claim.type, claim.state)
        assert isinstance(event, RunStarted)
        time.sleep(1.0)  # somewhere between two beats
        killed_at = self.log.now()
        self.processes.pop(event.node).kill()
        (taken,) = self.until(stored_name(TurnTakenOver), 1)
        return (taken.recorded_at - killed_at) / 1e6

    def pace(self, mean_ms: float) -> None:
        """Let OpenAI take so long."""
        where = urlsplit(self.openai)
        with closing(http.client.HTTPConnection(where.hostname or "", where.port)) as door:
            body = json.dumps({"mean_ms": mean_ms, "spread": 0.0})
            door.request("POST", "/_sim/latency", body, {"content-type": "application/json"})
            door.getresponse().read()


def _post(url: str, bodies: Sequence[bytes]) -> None:
    """Send webhooks to one node, one after the other."""
    where = urlsplit(url)
    with closing(http.client.HTTPConnection(where.hostname or "", where.port)) as door:
        for body in bodies:
            door.request("POST", PATH, body, {"content-type": "application/json"})
            answer = door.getresponse()
            answer.read()
            if answer.status != http.client.OK:
                msg = f"a webhook was answered with {answer.status}"
                raise ServerFailed(msg)


@contextmanager
def _fleet(plan: Plan, server: Databases, count: int) -> Iterator[_Fleet]:
    """Start so many nodes on a new bot in PostgreSQL, between simulators of their own."""
    folder = plan.sets.scratch("nodes")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sims = stack.enter_context(_simulators())
        log_url, keys_url = server.database(), server.database()
        stack.callback(server.drop, keys_url)
        stack.callback(server.drop, log_url)
        environment = {
            **inherited(),
            "HILO_DATABASE_URL": log_url,
            "HILO_KEYS_DATABASE_URL": keys_url,
            "HILO_KEK": base64.b64encode(os.urandom(32)).decode(),
            "HILO_LOGS": str(folder / "logs"),
            "HILO_QUIET_SECONDS": "0",
            "HILO_LONGEST_SECONDS": "0",
            "HILO_RUNS_AT_ONCE": str(RUNS_AT_ONCE),
            "OPENAI_API_KEY": "simulated",
            "OPENAI_BASE_URL": sims["openai"],
            "WHAPI_TOKEN": "simulated",
            "WHAPI_BASE_URL": sims["whapi"],
        }
        log = stack.enter_context(closing(PostgresLog(log_url, schema="bot_default")))
        fleet = _Fleet(log, sims["openai"])
        fleet.pace(LATENCY_MS)
        for number in range(count):
            stack.enter_context(_node(fleet, folder / f"node{number}", environment))
        yield fleet


@contextmanager
def _node(fleet: _Fleet, data: Path, environment: dict[str, str]) -> Iterator[None]:
    name = data.name
    command = [sys.executable, "-m", "app.cli", "serve", "--data", str(data), "--port", "0"]
    address = data / "serve.json"
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment, "HILO_NODE": name},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _PATIENCE
        while not address.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if not address.exists():
            msg = f"the node {name} did not start"
            raise ServerFailed(msg)
        fleet.urls.append(str(json.loads(address.read_bytes())["url"]))
        fleet.processes[name] = process
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        address.unlink(missing_ok=True)


@contextmanager
def _simulators() -> Iterator[dict[str, str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "app.simulators", "all", "--exit-with-parent"],
        cwd=ROOT,
        env=inherited(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield json.loads(child.stdout.readline())
        finally:
            child.stdin.close()
