"""What can happen to a fleet: each disaster begins under traffic, and is over when it returns."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from app.conversation.crash import POINTS
from tests.faults.nodes.fleet import Fleet, Node
from tests.faults.turns.crowd import some_events, traffic

Disaster = Callable[[], Awaitable[None]]


class Storm:
    """Disasters that befall a fleet, chosen by a seed."""

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self.fleet = fleet
        self._rng = rng

    @property
    def all(self) -> list[Disaster]:
        """Every kind of disaster."""
        return [
            self.a_node_is_killed,
            self.all_nodes_are_killed,
            self.a_node_is_replaced,
            self.a_node_dies_at_a_named_point,
            self.a_node_is_paused_past_its_lease,
            self.a_network_is_cut,
            self.a_network_stands_still,
            self.a_network_forgets_its_connections,
            self.the_database_is_stopped,
            self.the_database_crashes,
        ]

    async def goes_on(self, disasters: list[Disaster]) -> None:
        """Let people write, and one disaster follow the other."""
        for disaster in disasters:
            await self._people_write()
            await disaster()
            for node in self.fleet.nodes:
                assert node.is_up, f"{disaster.__name__}: {node.said.decode()}"

    # -- nodes ------------------------------------------------------------------------------------

    async def a_node_is_killed(self) -> None:
        """Kill one and miss it for longer than its lease: others take over what it held."""
        node = self._one()
        await node.goes()
        await self._people_write()
        await self.fleet.lease_passes()
        await node.start()

    async def all_nodes_are_killed(self) -> None:
        """Cut everybody's power; all are back before anybody is missed."""
        await asyncio.gather(*(node.goes() for node in self.fleet.nodes))
        await traffic(self.fleet.outside, self._rng)
        await asyncio.gather(*(node.start() for node in self.fleet.nodes))

    async def a_node_is_replaced(self) -> None:
        """Stop one in good order and start another in its place, as an upgrade does."""
        node = self._one()
        stopping = asyncio.ensure_future(node.stop())
        await self._people_write()
        assert await stopping == 0, node.said.decode()
        await node.start()

    async def a_node_dies_at_a_named_point(self) -> None:
        """Kill one, and let it die again wherever a point says; it may never come there."""
        node = self._one()
        await node.goes()
        await node.start(f"{self._rng.choice(POINTS)}:{self._rng.randint(1, 3)}", wait=False)
        await self._people_write()
        await self._people_write()
        await node.goes()
        await node.start()

    async def a_node_is_paused_past_its_lease(self) -> None:
        """Stop one with SIGSTOP until others hold its turns; then let it go on, a zombie."""
        node = self._one()
        node.signal(signal.SIGSTOP)
        await self._people_write()
        await self.fleet.lease_passes()
        node.signal(signal.SIGCONT)

    # -- the network between a node and the database ----------------------------------------------

    async def a_network_is_cut(self) -> None:
        """Cut one node's connections and refuse new ones for longer than its lease."""
        node = self._one()
        node.network.refuse()
        await self._people_write()
        await self.fleet.lease_passes()
        node.network.accept()

    async def a_network_stands_still(self) -> None:
        """Let nothing pass in one node's connections, without a word, for longer than its lease."""
        node = self._one()
        node.network.freeze()
        await self._people_write()
        await self.fleet.lease_passes()
        node.network.resume()

    async def a_network_forgets_its_connections(self) -> None:
        """Let nothing more pass on one node's connections, ever, without a word; new ones work.

        It finds that out by itself, and is back.
        """
        node = self._one()
        node.network.strand()
        await self._people_write()
        await self.fleet.lease_passes()
        await self.fleet.agree_on_who_lives()

    # -- the database -----------------------------------------------------------------------------

    async def the_database_is_stopped(self) -> None:
        """Stop it in order, for longer than any lease, and start it again."""
        server = self.fleet.database.server
        await asyncio.to_thread(server.stop, "fast")
        await traffic(self.fleet.outside, self._rng)
        await self.fleet.lease_passes()
        await asyncio.to_thread(server.start)

    async def the_database_crashes(self) -> None:
        """End it as a power cut would, and start it again at once."""
        server = self.fleet.database.server
        await asyncio.to_thread(server.kill)
        await traffic(self.fleet.outside, self._rng)
        await asyncio.to_thread(server.start)

    # -- parts ------------------------------------------------------------------------------------

    def _one(self) -> Node:
        return self._rng.choice(self.fleet.nodes)

    async def _people_write(self) -> None:
        await traffic(self.fleet.outside, self._rng)
        await some_events(self.fleet.nodes[0], self._rng.randint(1, 40))
