"""Who asks, and what they may: roles, rights, and the refusal of everybody else (H4).

A bearer key has one role. While there is no key, only this machine is served, as everything: that
is how one starts, and it says so. As soon as there is one, everybody needs one, also when it has
expired: an installation never opens by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal, Protocol

import msgspec
import structlog
from anyio import to_thread
from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from app.aggregates.access import AccessKey, Role
from app.api.again import Again
from app.api.nearness import is_near
from app.api.problem import Problem, ProblemError
from app.api.rates import Rates
from eventstore.errors import EventStoreError

_log = structlog.get_logger(__name__)

Right = Literal["events", "figures", "texts", "numbers", "operate", "hook"]
"""`events`: the log and what it says of users; `figures`: totals that name nobody; `texts`: what
people wrote, opened; `numbers`: who they are; `operate`: change how the bot works; `hook`: tell it
that something changed elsewhere."""

UNKNOWN_SECONDS: Final = 0.05
"""Before a key that nobody knows is refused, the keys are read again, at most so often: one that
was just made is good at once, and strangers cannot make it read more than that."""

RIGHTS: Final[dict[Role | Literal["local"], frozenset[Right]]] = {
    "auditor": frozenset({"events", "figures", "texts", "numbers"}),
    "operator": frozenset({"events", "figures", "numbers", "operate", "hook"}),
    "analyst": frozenset({"events", "figures"}),
    "hook": frozenset({"hook"}),
    "webhook": frozenset(),
    "local": frozenset({"events", "figures", "texts", "numbers", "operate", "hook"}),
}
"""What each role may, and nothing else. `webhook` opens nothing: a webhook comes in with the
secret of its channel, never with a key."""

BEARER: Final = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description="A key of `hilo keys create --role …`, as `Authorization: Bearer hilo_…`.",
)


class Caller(msgspec.Struct, frozen=True):
    """Somebody who may come in."""

    key: str
    """Id of the key; `local` without one."""
    role: Role | Literal["local"]
    bot: str = ""
    """The only bot that they may ask about; empty: any."""

    def may(self, right: Right) -> bool:
        """Tell whether the caller has a right."""
        return right in RIGHTS[self.role]


class Keys(Protocol):
    """The keys, as they are now. May wait for a disk."""

    def any(self) -> bool:
        """Tell whether there is a key that is not revoked."""

    def is_good(self, key_id: str) -> bool:
        """Tell whether the key of an id still opens anything."""

    def find(self, token: str) -> AccessKey | None:
        """Return the good key that a token is."""

    def may_be_new(self, token: str) -> bool:
        """Tell whether a token may be a key that was made since the last look. Never waits."""

    def look_again(self) -> None:
        """Learn now what has been made or revoked."""

    def used(self, key: AccessKey) -> None:
        """Record that a key was used."""


class Gate:
    """Lets callers in. Counts whom it refuses, by reason."""

    def __init__(self, keys: Keys, rates: Rates | None = None) -> None:
        """Ask `keys`; without `rates` each may ask as often as it likes."""
        self._keys = keys
        self._rates = rates or Rates(0, 1)
        self._again = Again(keys.look_again, UNKNOWN_SECONDS)
        self.refused: Counter[str] = Counter()

    async def caller(self, request: Request) -> Caller:
        """Return who asks. Raises `ProblemError` 401, 429, or 503 while nobody can tell."""
        given = request.headers.get("authorization")
        scheme, _, token = (given or "").partition(" ")
        try:
            if given is None and await to_thread.run_sync(self._is_open_to, request):
                return Caller("local", "local")
            bearer = scheme.lower() == "bearer" and token.strip()
            key = await self._look_for(bearer) if bearer else None
        except EventStoreError:
            raise ProblemError(_CANNOT_TELL, headers={"retry-after": "5"}) from None
        if key is None:
            raise self.refuse("no_key" if given is None else "wrong_key", _NO_KEY, _CHALLENGE)
        if seconds := self._rates.wait(key.id):
            later = {"retry-after": str(math.ceil(seconds))}
            refusal = self.refuse("too_often", _TOO_OFTEN, later)
            raise refusal
        return Caller(key.id, key.role, key.bot)

    async def sees(self, request: Request, right: Right) -> Caller | None:
        """Return who asks if they are on this machine, or have a key with a right; else None.

        For what strangers are answered, too, only less.
        """
        if is_near(request):
            return Caller("local", "local")
        if "authorization" not in request.headers:
            return None
        try:
            caller = await self.caller(request)
        except ProblemError:
            return None
        return caller if caller.may(right) else None

    async def holds(self, caller: Caller) -> bool:
        """Tell whether somebody who came in may stay: a key may have been revoked meanwhile."""
        try:
            if caller.role == "local":
                return not await to_thread.run_sync(self._keys.any)
            return await to_thread.run_sync(self._keys.is_good, caller.key)
        except EventStoreError:
            return False

    def refuse(
        self, reason: str, problem: Problem, headers: dict[str, str] | None = None
    ) -> ProblemError:
        """Count a refusal and return what it is answered with."""
        self.refused[reason] += 1
        return ProblemError(problem, headers=headers)

    async def _look_for(self, token: str) -> AccessKey | None:
        key = await to_thread.run_sync(self._find, token)
        if key is None and self._keys.may_be_new(token):
            await self._again()
            key = await to_thread.run_sync(self._find, token)
        return key

    def _find(self, token: str) -> AccessKey | None:
        key = self._keys.find(token)
        if key is not None:
            try:
                self._keys.used(key)
            except EventStoreError as error:  # the use counts, its record is for the operator
                _log.warning("KEY_USE_NOT_RECORDED", key=key.id, error=type(error).__name__)
        return key

    def _is_open_to(self, request: Request) -> bool:
        return is_near(request) and not self._keys.any()


_CHALLENGE: Final = {"www-authenticate": 'Bearer realm="hilo"'}
_NO_KEY: Final = Problem(
    type="/problems/no-key",
    title="A key is needed",
    status=401,
    detail="Send Authorization: Bearer KEY, with a key of hilo keys create that is neither expired "
    "nor revoked. Without any key in the installation, only its own machine is served.",
)
_CANNOT_TELL: Final = Problem(
    type="/problems/keys-unavailable",
    title="Nobody can tell now whose keys are good",
    status=503,
    detail="The control log cannot be read. Try again after Retry-After seconds.",
)
_TOO_OFTEN: Final = Problem(
    type="/problems/too-often",
    title="This key asks too often",
    status=429,
    detail="Ask again after Retry-After seconds; HILO_KEY_RATE and HILO_KEY_BURST set how often.",
)
_NO_RIGHT: Final = Problem(
    type="/problems/no-right",
    title="This key's role may not do that",
    status=403,
    detail="Ask for a key with another role (hilo keys create --role …).",
)


def needs(right: Right) -> Callable[[Request], Caller]:
    """Return the dependency of a route that asks for a right; it gives the caller."""

    async def allowed(request: Request, _: Annotated[object, Depends(BEARER)]) -> Caller:
        gate: Gate = request.app.state.gate
        caller = await gate.caller(request)
        if not caller.may(right):
            refusal = gate.refuse("no_right", _NO_RIGHT)
            raise refusal
        _refuse_unknown(request)
        return caller

    allowed.right = right  # type: ignore[attr-defined]
    return allowed  # type: ignore[return-value]


def _refuse_unknown(request: Request) -> None:
    """Raise `ProblemError` for a parameter that the route has not.

    Whoever asks `?as_of=` where nothing looks at it would take the present for the past.
    """
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    if request.query_params.keys() <= known:
        return
    problem = Problem(
        type="/problems/invalid-request",
        title="There is no such parameter here",
        status=422,
        detail=f"This is asked with {', '.join(sorted(known)) or 'none at all'}.",
    )
    raise ProblemError(problem)


def rights_of(route: object) -> Sequence[Right]:
    """Return the rights that a route asks for; a test holds every route to having one."""
    dependant = getattr(route, "dependant", None)
    found = [] if dependant is None else dependant.dependencies
    return [one.call.right for one in found if hasattr(one.call, "right")]
