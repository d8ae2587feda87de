"""What both simulators are: a vendor's server that can be told to fail, and ends in good order."""

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.simulators.faults import FaultBoard, FaultGate, fault_routes
from app.simulators.web import ErrorBody, door


class Vendor(ABC):
    """A server, as an ASGI application."""

    def __init__(self, error_body: ErrorBody, rng: random.Random) -> None:
        """Open the door; whatever the routes lead to is there already."""
        self.faults = FaultBoard(rng)
        routes = [*self._routes(), *fault_routes(self.faults)]
        app = door(routes, error_body, lifespan=self._living)
        self._app: ASGIApp = FaultGate(app, self.faults, error_body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        await self._app(scope, receive, send)

    @abstractmethod
    def hang_up(self) -> None:
        """Answer every long-poll now: the server is about to stop."""

    @abstractmethod
    def _routes(self) -> Sequence[Route]:
        """Return the vendor's paths, and those of the test's own."""

    @abstractmethod
    async def _end(self) -> None:
        """Let what still runs come to its end."""

    @asynccontextmanager
    async def _living(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self._end()
