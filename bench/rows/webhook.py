"""The webhook over HTTP, acknowledged after the commit, alone and beside a rebuild."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from app.projections.bulk import worker_command
from bench.datasets import CHATTY, DataSet
from bench.load import CONNECTIONS, Load, Shots, fire
from bench.measuring import PeerMissing, Row, compare, interleaved
from bench.neighbours import Memory
from bench.people import working_set
from bench.plan import Plan
from bench.servers import fastify, hilo_serve, noop, wait_until_caught_up

SECONDS: Final = 4.0
PATH: Final = "/webhooks/whapi"


class Target:
    """A server under load; message ids are new in every round."""

    def __init__(self, url: str, data: DataSet, seconds: float) -> None:
        """Take messages of the working set of `data` at `url`."""
        self._url = url + PATH
        self._phones = tuple(person.phone for person in working_set(data.people, CHATTY))
        self._seconds = seconds
        self._rounds = itertools.count()

    def warm_up(self) -> None:
        """A message of everybody: who is unknown is registered, everybody is in memory."""
        self._fire(requests=len(self._phones))

    def shots(self) -> Shots:
        """One round."""
        return self._fire(requests=0)

    def rate(self) -> float:
        """One round's answers a second."""
        return self.shots().rate

    def _fire(self, requests: int) -> Shots:
        load = Load(
            url=self._url,
            seconds=self._seconds,
            tag=f"{next(self._rounds):x}",
            phones=self._phones,
            requests=requests,
        )
        return fire(load)


def against_fastapi(plan: Plan) -> list[Row]:
    """The whole way of a webhook, against a FastAPI handler that does nothing."""
    with ExitStack() as stack:
        seconds = plan.seconds(SECONDS)
        empty = plan.sets.empty
        peer = Target(stack.enter_context(noop("fastapi")), empty, seconds)
        bare = Target(stack.enter_context(noop("bare")), empty, seconds)
        peer.warm_up()
        ceiling = max(bare.rate() for _ in range(2))
        memory = Memory()
        rounds = {data.name: _rounds(plan, data, peer, memory) for data in plan.sets.both}
        return [
            compare(
                "webhook",
                f"webhooks over HTTP, {CONNECTIONS} connections, durable before 200",
                measured,
                peer_name="FastAPI, a handler that does nothing",
                target=1.0,
                unit="requests/s",
                data_set=name,
                notes=f"the load generator fires {ceiling:,.0f} requests/s at a bare ASGI no-op; "
                f"{memory}",
            )
            for name, measured in rounds.items()
        ]


def against_fastify(plan: Plan) -> list[Row]:
    """The same against a Node server that inserts one row durably."""
    with ExitStack() as stack:
        url = stack.enter_context(fastify(plan.sets.scratch("fastify.db")))
        peer = Target(url, plan.sets.empty, plan.seconds(SECONDS))
        peer.warm_up()
        rounds = _rounds(plan, plan.sets.empty, peer, Memory())
    return [
        compare(
            "webhook-node",
            "the same (goal 2.5 ×)",
            rounds,
            peer_name="Fastify + better-sqlite3, one durable insert",
            target=None,
            unit="requests/s",
            data_set=plan.sets.empty.name,
        )
    ]


def _rounds(
    plan: Plan, data: DataSet, peer: Target, memory: Memory
) -> tuple[tuple[float, float], ...]:
    with serving(plan, data) as (copy, ours):

        def undisturbed() -> float:
            # What our round left to be read and written is not to slow down the peer.
            wait_until_caught_up(copy)
            os.sync()
            return peer.rate()

        return interleaved(memory.before(ours.rate), memory.before(undisturbed), plan.rounds)


@contextmanager
def serving(plan: Plan, data: DataSet) -> Iterator[tuple[DataSet, Target]]:
    """`hilo serve` on a copy of the data set, warm."""
    copy = plan.sets.copy(data)
    with hilo_serve(copy, {}) as url:
        ours = Target(url, data, plan.seconds(SECONDS))
        wait_until_caught_up(copy)
        ours.warm_up()
        wait_until_caught_up(copy)
        yield copy, ours


def beside_rebuild(plan: Plan) -> list[Row]:
    """The slowest hundredth of webhooks while the worker rebuilds the read models, and without."""
    data = plan.sets.long
    with serving(plan, data) as (copy, ours):

        def with_rebuild() -> float:
            with rebuilding(copy):
                return ours.shots().p99

        rounds = interleaved(with_rebuild, lambda: ours.shots().p99, plan.rounds)
    return [
        compare(
            "webhook-p99",
            "p99 of the webhook while the read models are rebuilt",
            rounds,
            peer_name="without a rebuild",
            target=2.0,
            better="lower",
            unit="ms",
            data_set=data.name,
        )
    ]


@contextmanager
def rebuilding(data: DataSet) -> Iterator[None]:
    """Keep the worker process busy: one rebuild after the other."""
    command = worker_command(data.directory, "rebuild", [])
    stop = threading.Event()
    failures: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def work() -> None:
        while not stop.is_set():
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            running[:] = [process]
            code = process.wait()
            if code and not stop.is_set():
                failures.append(code)
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        for process in running:
            process.terminate()
        thread.join()
    if failures:
        msg = f"the worker ended with {failures[0]}"
        raise PeerMissing(msg)
