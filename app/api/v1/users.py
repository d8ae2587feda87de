"""`/v1/users`: who writes to the bot, and everything about one of them at any moment."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import structlog
from fastapi import APIRouter, Depends, Query, Request, Response

from app.aggregates.events import Profile
from app.aggregates.user import User
from app.api.callers import Caller, needs
from app.api.problem import Problem, ProblemError
from app.api.v1.events import presenter
from app.api.v1.people import no_such_user
from app.api.v1.problems import not_known_yet
from app.api.v1.reading import AsOf, BotName, MinPosition, Read, read_for, user_stream
from app.api.v1.showing import answers, shown
from app.projections import clients
from app.projections.presenting import plain
from app.projections.timeline import Moment, timeline
from app.projections.token_totals import Band, band
from app.projections.user_at import user_at
from eventstore.errors import Forgotten, KeyringError
from eventstore.keyring import Handle
from eventstore.types import Position

_log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/users", tags=["users"])
Reader = Annotated[Caller, Depends(needs("events"))]
MASK: Final = "•••"


class ThreadFacts(msgspec.Struct, frozen=True):
    """The conversation at OpenAI."""

    id: str
    started_at: int
    tokens: int
    band: Band


class UserFacts(msgspec.Struct, frozen=True):
    """One user as of `position`. What the caller may not see is masked."""

    position: int
    user: str
    version: int
    registered_at: int | None
    last_activity: int | None
    thread: ThreadFacts | None
    last_reset: str | None
    waiting: int
    """Messages without an answer."""
    run: str | None
    delivering: bool
    parked: bool
    name: str | None
    """As the address book, or what was imported, has it."""
    user_name: str | None
    """What they call themselves, as one of their last messages says, or what was imported."""
    labels: tuple[str, ...]
    phone: str | None


class ListedClient(clients.Client, frozen=True, rename="camel"):
    """One client of the list: figures as they were recorded, and beside them what is live."""

    live: Annotated[
        clients.Live, msgspec.Meta(description="last activity and token count up to `position`")
    ]


class ClientPage(msgspec.Struct, frozen=True):
    """Clients in the order of their pseudonyms; `next` is the `after` of the next page."""

    position: int
    users: list[ListedClient]
    next: str | None = None


class TimelinePage(msgspec.Struct, frozen=True):
    """What happened to a user, oldest first; `next` is the `after` of the next page."""

    position: int
    moments: list[dict[str, Any]]
    next: int | None = None


_USER: Final = {
    "position": 42,
    "user": "k7q2mzp4xw3abcde5fgh",
    "version": 9,
    "registered_at": "2026-11-20T19:00:00.000001Z",
    "last_activity": "2026-11-20T19:30:00.000001Z",
    "thread": {
        "id": "conv_1",
        "started_at": "2026-11-20T19:00:01.000001Z",
        "tokens": 150,
        "band": "normal",
    },
    "last_reset": None,
    "waiting": 0,
    "run": None,
    "delivering": False,
    "parked": False,
    "name": MASK,
    "user_name": MASK,
    "labels": [],
    "phone": MASK,
}
_CLIENT: Final = {
    "userId": "k7q2mzp4xw3abcde5fgh",
    "name": MASK,
    "userName": MASK,
    "labels": [],
    "chatId": MASK,
    "lastActivity": "2026-11-20T19:30:00.000001Z",
    "threadId": "conv_1",
    "threadTokenCount": 1050,
}
_LIVE: Final = {"lastActivity": "2026-11-20T19:34:10.000001Z", "threadTokenCount": 1200}
_LISTED: Final = ("client_view", "thread_map", "token_totals")


@router.get(
    "",
    summary="Everybody who writes to the bot",
    responses=answers(
        ClientPage,
        "A page of users.",
        {"position": 42, "users": [_CLIENT | {"live": _LIVE}], "next": None},
    ),
)
async def list_users(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Reader,
    *,
    bot: BotName = "",
    after: Annotated[str, Query(max_length=64, description="`next` of the page before")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    as_of: AsOf = None,
    min_position: MinPosition = None,
) -> Response:
    """Return the client view, page by page.

    `lastActivity` and `threadTokenCount` are the recorded ones: they move together, ten minutes
    (`HILO_ACTIVITY_SECONDS`) after the last event. `live` has those of the log up to `position`.
    """
    read = read_for(request, caller, bot)
    await read.reflected(_LISTED, min_position)
    views = read.bot.views
    if as_of is not None and as_of.strip() not in {"", "now"}:
        views = await read.past(await read.position(as_of), _LISTED)
    found = await read.run(lambda: clients.clients(views, after=after, limit=limit))

    def page() -> dict[str, Any]:
        pairs = zip(found.clients, found.live, strict=True)
        rows = [_client(read, view) | {"live": shown(live)} for view, live in pairs]
        following = found.clients[-1].user if len(found.clients) == limit else None
        return {"position": found.position, "users": rows, "next": following}

    return await read.answer(found.position, page)


@router.get(
    "/{user}",
    summary="One user, now or at any moment",
    responses=answers(UserFacts, "The user.", _USER),
)
async def show_user(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Reader,
    user: str,
    *,
    bot: BotName = "",
    as_of: AsOf = None,
    min_position: MinPosition = None,
) -> Response:
    """Return what the user's own stream says, replayed up to the moment that is asked about."""
    read = read_for(request, caller, bot)
    position = await read.position(as_of, min_position)

    def facts() -> object:
        found = user_at(read.bot.log, user_stream(user), position)
        if found.version == 0:
            raise ProblemError(_unknown(read, user))
        return shown(_facts(read, found, position))

    return await read.answer(position, facts)


@router.get(
    "/{user}/client",
    summary="What the bot knows of a client, from memory if it is there",
    responses=answers(
        clients.Client,
        "The client.",
        _CLIENT,
    ),
)
async def show_client(
    request: Request, caller: Reader, user: str, *, bot: BotName = ""
) -> Response:
    """Return the client view of one user: name and labels, thread, and the recorded figures.

    `lastActivity` and `threadTokenCount` move together, ten minutes (`HILO_ACTIVITY_SECONDS`) after
    the last event; `GET /v1/users/{user}` has what is live.
    """
    read = read_for(request, caller, bot)
    position = await read.position(None)
    if not (user.isascii() and user.isalnum()):
        raise ProblemError(no_such_user(user))
    view = await read.bot.client(user)
    if view.chat is None and view.named_at is None:
        raise ProblemError(no_such_user(user))
    return await read.answer(position, lambda: _client(read, view))


@router.get(
    "/{user}/timeline",
    summary="What happened to a user, and what led to what",
    responses=answers(
        TimelinePage,
        "A page of the timeline.",
        {
            "position": 42,
            "moments": [{"position": 42, "type": "MessageReceived", "chain": "run_1"}],
            "next": None,
        },
    ),
)
async def show_timeline(  # noqa: PLR0913 - every filter is a parameter
    request: Request,
    caller: Reader,
    user: str,
    *,
    bot: BotName = "",
    as_of: AsOf = None,
    after: Annotated[int, Query(ge=0, description="`next` of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    min_position: MinPosition = None,
) -> Response:
    """Return the user's stream as moments: each names its chain and what caused it."""
    read = read_for(request, caller, bot)
    position = await read.position(as_of, min_position)

    def page() -> object:
        moments = timeline(read.bot.log, user_stream(user), up_to=position)
        if not moments:
            raise ProblemError(_unknown(read, user))
        rest = [moment for moment in moments if moment.version > after]
        rows = _told(read, user, rest[:limit])
        following = rest[limit - 1].version if len(rest) > limit else None
        return {"position": position, "moments": rows, "next": following}

    return await read.answer(position, page)


def _unknown(read: Read, user: str) -> Problem:
    """Return the 404 of somebody unknown at that moment; it tells since when they are known.

    Whoever may ask about users may read events, and finds the same there.
    """
    first = read.bot.log.read_stream(user_stream(user), limit=1)
    return not_known_yet("user", first[0]) if first else no_such_user(user)


def _told(read: Read, user: str, moments: list[Moment]) -> list[dict[str, Any]]:
    """Return moments with their texts opened, or marked as sealed."""
    if not moments:
        return []
    present = presenter(read)
    first, last = moments[0].version, moments[-1].version
    rows = read.bot.log.read_stream(user_stream(user), after=first - 1, up_to=last)  # type: ignore[arg-type]
    states = {row.version: present.state_of(row)[0] for row in rows}
    return [
        {
            "position": moment.position,
            "version": moment.version,
            "at": shown(moment)["at"],
            "type": moment.type,
            "chain": moment.chain,
            "caused_by": moment.caused_by,
            "sender_at": shown(moment)["sender_at"],
            "facts": plain(states.get(moment.version, {})),
        }
        for moment in moments
    ]


def _facts(read: Read, user: User, position: Position) -> UserFacts:
    s = user.state
    pseudonym = user.stream.partition("/")[2]
    profile = _profile(read, user, pseudonym)
    thread = None
    if s.thread is not None:
        thread = ThreadFacts(
            s.thread.id, s.thread.started_at, s.thread.tokens, band(s.thread.tokens)
        )
    return UserFacts(
        position=position,
        user=pseudonym,
        version=user.version,
        registered_at=s.contact.registered_at if s.contact else None,
        last_activity=s.activity_at or None,
        thread=thread,
        last_reset=s.last_reset,
        waiting=sum(entry.count for entry in s.pending),
        run=s.run.id if s.run else None,
        delivering=s.delivery is not None,
        parked=s.parked is not None,
        name=profile.shown_name or None,
        user_name=_user_name(read, user, pseudonym) or profile.user_name or None,
        labels=profile.labels,
        phone=_phone(read, pseudonym),
    )


def _profile(read: Read, user: User, pseudonym: str) -> Profile:
    sealed = user.state.profile
    if sealed is None:
        return Profile()
    if not read.caller.may("numbers"):
        return Profile(name=MASK)
    try:
        return read.bot.sealer.open(pseudonym, user.stream, "profile", sealed, Profile)
    except KeyringError as error:
        _say_unopened(pseudonym, error)
        return Profile()


def _user_name(read: Read, user: User, pseudonym: str) -> str | None:
    if not read.caller.may("numbers"):
        return MASK
    try:
        return clients.last_name_said(user.stream, user.version, read.bot.log, read.bot.sealer)
    except KeyringError as error:
        _say_unopened(pseudonym, error)
        return None


def _phone(read: Read, pseudonym: str) -> str | None:
    if not read.caller.may("numbers"):
        return MASK
    try:
        handles: tuple[Handle, ...] = read.bot.handles_of(pseudonym)
    except KeyringError as error:
        _say_unopened(pseudonym, error)
        return None
    return next((handle.value for handle in handles if handle.kind == "phone"), None)


def _say_unopened(pseudonym: str, error: KeyringError) -> None:
    """Log what is shown as if it were not there, unless the person was forgotten on purpose."""
    if not isinstance(error, Forgotten):
        _log.error("UNOPENED", userId=pseudonym, error=type(error).__name__)


def _client(read: Read, view: clients.ClientView) -> dict[str, Any]:
    if read.caller.may("numbers"):
        try:
            client = clients.open_client(view, read.bot.log, read.bot.sealer)
        except KeyringError as error:
            _say_unopened(view.user, error)
        else:
            found: dict[str, Any] = shown(client)
            return found
    hidden = clients.Client(
        user_id=view.user,
        name=MASK,
        user_name=MASK,
        labels=(),
        chat_id=MASK,
        last_activity=view.last_activity,
        thread_id=view.thread_id,
        thread_token_count=view.thread_token_count,
    )
    masked: dict[str, Any] = shown(hidden)
    return masked
