"""The read models, looked at from beside the server: nothing is made, migrated or locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from app import asof
from app.cli import output
from app.cli.failures import CannotReach
from app.cli.pasts import past_of
from app.derived import is_damaged, is_refused
from app.projections import MODELS, Bands, NotBuilt, Standing, Threads, Views, named
from app.projections.queries import ModelStatus, models

if TYPE_CHECKING:
    from app.installation import Installation

_BUSY_SECONDS: Final = 10.0
OF_THREADS: Final = ("thread_map", "token_totals")
"""The read models that tell of conversations."""


class LookedAt(Views):
    """A `views.db` as it is. Where there is none, nothing is built, and nothing will be."""

    def __init__(self, path: Path) -> None:
        """Open the file if it is there. Raises `sqlite3.Error` if it cannot be used."""
        self.path = path
        self._connection = _connect(path) if path.is_file() else None

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give one moment of the file. Raises `NotBuilt` if there is none."""
        if self._connection is None:
            raise NotBuilt(MODELS[0].name)
        self._connection.execute("BEGIN")
        try:
            yield self._connection
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def standings(self) -> dict[str, Standing]:
        """Return every model's standing by name: none without a file."""
        return {} if self._connection is None else super().standings()

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._connection is not None:
            self._connection.close()


@contextmanager
def views_of(here: Installation) -> Iterator[Views]:
    """Give a bot's read models as they are. Raises `CannotReach` if their file cannot be used."""
    try:
        views = LookedAt(here.views_path)
        try:
            yield views
        finally:
            views.close()
    except sqlite3.DatabaseError as error:
        if is_refused(error):
            msg = f"{here.views_path} cannot be used ({error}): let this user read and write it"
            raise CannotReach(msg) from error
        if not is_damaged(error):
            raise
        msg = (
            f"{here.views_path} is damaged ({error}). It is derived from the log: "
            "hilo projections rebuild, or a start of hilo serve, makes it anew"
        )
        raise CannotReach(msg) from error


@contextmanager
def asked(here: Installation, as_of: str | None, *names: str) -> Iterator[Views]:
    """Give the read models as they are; or those of the names as they were."""
    if as_of is None:
        with views_of(here) as views:
            yield views
        return
    with past_of(here, asof.as_of(here.log, as_of), *names) as views:
        yield views


def reflects(
    here: Installation,
    views: Views,
    answer: Threads | Bands,
    *names: str,
    quiet: bool,
    past: bool,
) -> dict[str, object]:
    """Return which position of the log an answer of some models reflects, and say it to people."""
    head = here.log.head().position
    lag = max(0, head - answer.position)
    if not quiet:
        behind = f", {lag} events behind it" if lag and not past else ""
        output.remark(f"as of position {answer.position} of a log that ends at {head}{behind}")
        for complaint in [] if past else complaints(views, here, *names):
            output.remark(f"warning: {complaint}")
    return {"position": answer.position, "head": head, "lag": lag}


def complaints(views: Views, here: Installation, *names: str) -> list[str]:
    """Return why what some models say is not what the log says: stopped or being rebuilt."""
    statuses = models(views, here.log, [named(name, MODELS) for name in names])
    return [_complaint(status) for status in statuses if _is_wrong(status)]


def _is_wrong(status: ModelStatus) -> bool:
    return status.state != "live"


def _complaint(status: ModelStatus) -> str:
    if status.state == "parked":
        return (
            f"{status.name} has stopped at position {status.position} of {status.head} "
            f"({status.error}): upgrade, or hilo projections rebuild {status.name}"
        )
    if status.state == "paused":
        return (
            f"{status.name} stands still at position {status.position} of {status.head}, "
            f"{status.error}: hilo projections resume {status.name}"
        )
    return (
        f"{status.name} stands still at position {status.position} of {status.head} and is to be "
        f"rebuilt: hilo serve does it, or hilo projections rebuild {status.name}"
    )


def _connect(path: Path) -> sqlite3.Connection | None:
    """Open a file with read models in it; None if there are none in it yet."""
    connection = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?mode=rw",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
    )
    try:
        connection.execute("PRAGMA query_only=ON")
        found = "SELECT 1 FROM sqlite_master WHERE name = 'cursors'"
        begun = connection.execute(found).fetchone() is not None
    except BaseException:
        connection.close()
        raise
    if begun:
        return connection
    connection.close()
    return None
