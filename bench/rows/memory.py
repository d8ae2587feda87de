"""What `hilo serve` keeps in memory: many people in the log, and the same load again and again.

Each phase brings webhooks of people who have not written yet, pages of the log, and turns; nothing
is left to do when its end is measured. A first, larger one fills every bounded map.
"""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from typing import Final

import httpx2
import msgspec
import psutil

from bench.datasets import DataSet, thousands
from bench.load import Load, fire
from bench.measuring import Row, compare, limit
from bench.plan import Plan
from bench.rows.api import Pages
from bench.rows.webhook import PATH
from bench.servers import ServerFailed, hilo_serve, wait_until_caught_up

PHASES: Final = 6
FILLING: Final = 30_000
WEBHOOKS: Final = 10_000
PAGES: Final = 300
TURNS: Final = 200
FLAT: Final = 1.05
_PATIENCE: Final = 300.0
_AT_ONCE: Final = {
    "OPENAI_BASE_URL": "",  # simulated, by a process of its own
    "WHAPI_BASE_URL": "",
    "HILO_QUIET_SECONDS": "0",
    "HILO_LONGEST_SECONDS": "0",
    "HILO_ACTIVITY_SECONDS": "0.1",
}


def serving(plan: Plan) -> list[Row]:
    """Resident memory after each phase: how much at the end, and against the middle."""
    data = plan.sets.copy(plan.sets.crowd)
    phases = plan.work(PHASES, least=3)
    with ExitStack() as stack:
        url = stack.enter_context(hilo_serve(data, _AT_ONCE))
        server = _Server(url, data, stack.enter_context(httpx2.Client(base_url=url, timeout=60)))
        wait_until_caught_up(data, server.look)
        server.rest()
        begun = server.resident()
        server.work(plan, webhooks=FILLING)
        sizes = []
        for number in range(phases):
            server.work(plan, webhooks=WEBHOOKS)
            sizes.append(server.resident())
            plan.say(f"phase {number + 1} of {phases}: {sizes[-1]:.0f} MB")
        beside = ", ".join(f"{name} {size:.0f} MB" for name, size in server.beside().items())
    shown = ", ".join(f"{size:.0f}" for size in sizes)
    webhooks, pages, turns = (thousands(plan.work(n)) for n in (WEBHOOKS, PAGES, TURNS))
    phase = f"each phase {webhooks} webhooks, {pages} pages, {turns} turns"
    return [
        limit(
            "serve-memory",
            "resident memory of the serving process after all phases",
            sizes[-1],
            target=250.0,
            unit="MB",
            data_set=data.name,
            notes=f"{begun:.0f} MB before them; the worker, a child that is gone by then, took "
            f"{server.worker:.0f} MB beside it; those that stay: {beside}",
        ),
        compare(
            "serve-flat",
            "that, against the middle of the phases",
            [(sizes[-1], sizes[(phases - 1) // 2])],
            peer_name=f"after {(phases + 1) // 2} of {phases} phases",
            target=FLAT,
            better="lower",
            unit="MB",
            data_set=data.name,
            notes=f"after each phase {shown} MB; {phase}",
        ),
    ]


class _Server:
    """A server, its size, and the load on it."""

    def __init__(self, url: str, data: DataSet, client: httpx2.Client) -> None:
        address = msgspec.json.decode((data.data / "serve.json").read_bytes())
        self.worker = 0.0
        """The most that a worker was seen to take, in MB."""
        self._url = url
        self._client = client
        self._process = psutil.Process(address["pid"])
        self._pages = Pages(client)
        self._writers = itertools.cycle(person.phone for person in data.people)
        self._talkers = itertools.cycle(person.phone for person in reversed(data.people))
        self._loads = itertools.count()

    def resident(self) -> float:
        """The process's resident memory in MB; its children have their own."""
        return float(self._process.memory_info().rss) / 1e6

    def look(self) -> None:
        """See how large the worker is now, if there is one."""
        for child in self._process.children(recursive=True):
            try:
                if "app.worker" in child.cmdline():
                    self.worker = max(self.worker, child.memory_info().rss / 1e6)
            except psutil.Error:  # it has just ended
                continue

    def beside(self) -> dict[str, float]:
        """The children that stay, and their resident memory in MB; some of it is shared."""
        children = [(child.cmdline(), child) for child in self._process.children()]
        return {
            line[line.index("-m") + 1]: child.memory_info().rss / 1e6
            for line, child in children
            if "-m" in line
        }

    def work(self, plan: Plan, *, webhooks: int) -> None:
        """Bring one phase's load and wait until all that follows from it is done."""
        self._fire(plan.work(webhooks), "system")
        for _ in range(plan.work(PAGES)):
            self._pages.turn()
        self._fire(plan.work(TURNS), "mobile")
        self.rest()

    def rest(self) -> None:
        """Wait until no turn waits and no activity is to be recorded. Raises `ServerFailed`."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            self.look()
            if self._waiting() == 0:
                return
            time.sleep(0.2)
        msg = f"{self._waiting():.0f} turns and records were still to be done"
        raise ServerFailed(msg)

    def _waiting(self) -> float:
        lines = self._client.get("/metrics").text.splitlines()
        names = ("hilo_turns_waiting{", "hilo_turns_running{", "hilo_activities_waiting{")
        return sum(float(line.split()[-1]) for line in lines if line.startswith(names))

    def _fire(self, requests: int, source: str) -> None:
        people = self._writers if source == "system" else self._talkers
        phones = tuple(itertools.islice(people, requests))
        tag = f"{next(self._loads):x}"
        url = self._url + PATH
        fire(Load(url=url, seconds=0, tag=tag, phones=phones, requests=requests, source=source))
