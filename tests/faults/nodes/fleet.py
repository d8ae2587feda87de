"""Several `hilo serve` over one PostgreSQL: each with a network and a clock of its own."""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import Sequence
from pathlib import Path

import httpx2

from app.demo.evidence import dump_views, followed
from eventstore.postgres import PostgresLog, PostgresSettings, prepare
from eventstore.postgres_keystore import prepare as prepare_keys
from eventstore.store import LogStore
from tests.integration.turns.outside import PATIENCE, Outside
from tests.integration.turns.processes import Server
from tests.postgres import PostgresServer
from tests.tcp_proxy import TcpProxy

DEAD_SECONDS = 2.0
"""After which a silent node is dead (`processes.SHORT`)."""

NOBODY = "15550109999"
"""A phone that never writes."""

SCHEMA = "bot_default"


class Database:
    """Two databases on a server that a test breaks, and the roles of the program."""

    def __init__(self, server: PostgresServer) -> None:
        """Make and prepare them."""
        self.server = server
        log, keys = server.database(), server.database()
        self.owner = server.tcp(log)
        self.log_url = server.tcp(server.role(log))
        self.keys_url = server.tcp(server.role(keys))
        for schema in (SCHEMA, "control"):
            prepare(log, schema, role=_user(self.log_url))
        prepare_keys(keys, SCHEMA, _user(self.keys_url))

    def log(self) -> LogStore:
        """Open the log, past every broken network."""
        return PostgresLog(self.owner, schema=SCHEMA, settings=PostgresSettings(pool_size=1))


class Node(Server):
    """One node, which reaches the database through a network that can be cut."""

    def __init__(
        self, outside: Outside, directory: Path, database: Database, *, ahead: int = 0
    ) -> None:
        """`ahead`: seconds by which its clock is wrong."""
        self.network = TcpProxy(database.server.port)
        self._database = database
        super().__init__(
            outside,
            directory,
            HILO_NODE=directory.name,
            HILO_DATABASE_URL=self.network.url(database.log_url),
            HILO_KEYS_DATABASE_URL=self.network.url(database.keys_url),
            HILO_KEK=base64.b64encode(bytes(range(32))).decode(),
            HILO_ATTEMPTS="50",
            HILO_DATABASE_STATEMENT_SECONDS="2",
            HILO_DATABASE_LOCK_SECONDS="1",
        )
        if ahead:
            self.program = ("tests.faults.nodes.skewed", str(ahead), *self.program)

    def log(self) -> LogStore:
        return self._database.log()

    def signal(self, number: signal.Signals) -> None:
        """Send the running process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def has_died(self) -> bool:
        """Whether the process was started and is gone."""
        return self._process is not None and self._process.returncode is not None

    @property
    def views(self) -> Path:
        """Its read models."""
        return self.data / "default" / "views.db"

    async def goes(self) -> None:
        """Kill the process unless it is dead already, as it may be: by SIGKILL, and no other way.

        Nothing happens if there is none.
        """
        if self._process is None:
            return
        if self.is_up:
            self.signal(signal.SIGKILL)
        assert await self.dies() == -signal.SIGKILL, self.said.decode()

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(self.network.close)


class Fleet:
    """The nodes of one bot behind a load balancer."""

    def __init__(
        self,
        outside: Outside,
        directory: Path,
        server: PostgresServer,
        *,
        clocks: Sequence[int] = (0, 0, 0),
    ) -> None:
        """`clocks`: by how many seconds each node's is ahead."""
        self.outside = outside
        self.database = Database(server)
        self.nodes = [
            Node(outside, directory / f"node-{number}", self.database, ahead=ahead)
            for number, ahead in enumerate(clocks, 1)
        ]

    async def start(self) -> None:
        """Start all of them; return when they listen."""
        await asyncio.gather(*(node.start() for node in self.nodes))
        await self.outside.webhook(nodes=[node.url for node in self.nodes])

    async def lease_passes(self) -> None:
        """Return when who fell silent before is dead: a phone is watched that never rings."""
        await self.outside.silence(NOBODY, DEAD_SECONDS + 0.5)

    async def check_promises(self, seconds: float = 2 * PATIENCE) -> None:
        """Hold the fleet to every promise, and stop it."""
        await self.outside.mend()
        await self.outside.delivered()
        await self.nodes[0].settled(seconds)
        for node in self.nodes:
            assert node.is_up, node.said.decode()
        await self.follows()
        await self.agree_on_who_lives()
        # Now, while nobody writes: what one writes when it stops, another may not live to hear.
        first, *others = [dump_views(node.views) for node in self.nodes]
        assert len(first) > 1
        assert others == [first] * len(others)
        assert await asyncio.gather(*(node.stop() for node in self.nodes)) == [0] * len(self.nodes)

    async def follows(self) -> None:
        """Return when every node's read models are at the end of the log."""
        for node in self.nodes:
            await self._follows(node)

    async def _follows(self, node: Node) -> None:
        """Return when a node's read models are at the end of the log."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while followed(node.views) != (head := await asyncio.to_thread(self._head)):
            late = asyncio.get_running_loop().time() >= deadline
            assert not late, f"{node.data}: {followed(node.views)} of {head}"
            await self.outside.watch(NOBODY, 0.1)

    def _head(self) -> int:
        log = self.database.log()
        try:
            return log.head().position
        finally:
            log.close()

    async def agree_on_who_lives(self) -> None:
        """Return when every node thinks that all of them live."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while (seen := await self._alive()) != [len(self.nodes)] * len(self.nodes):
            assert asyncio.get_running_loop().time() < deadline, seen
            await self.outside.watch(NOBODY, 0.1)

    async def _alive(self) -> list[float]:
        """Return how many nodes each one thinks alive."""
        seen = []
        async with httpx2.AsyncClient(timeout=PATIENCE) as client:
            for node in self.nodes:
                answer = await client.get(f"{node.url}/metrics")
                lines = answer.text.splitlines()
                (line,) = (line for line in lines if line.startswith("hilo_nodes_alive"))
                seen.append(float(line.split()[-1]))
        return seen

    async def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        await asyncio.gather(*(node.close() for node in self.nodes))


def _user(url: str) -> str:
    return url.partition("://")[2].partition(":")[0]
