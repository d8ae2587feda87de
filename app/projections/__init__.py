"""Read models: what the log says, in tables, kept up to date and never asked to be true.

`Views` is a bot's `views.db`; a `Follower` keeps the models in it at the end of the log; the
functions ask. Everything here can be deleted and made again by `rebuild`.
"""

from app.projections.content import content, content_hash
from app.projections.errors import NotBuilt, ProjectionError, RebuildRunning, UnknownModel
from app.projections.follower import Follower
from app.projections.model import ReadModel, Seen, Session
from app.projections.queries import (
    Bands,
    ModelStatus,
    Threads,
    ThreadView,
    bands,
    models,
    named,
    thread,
    threads,
    top,
)
from app.projections.rebuild import Outcome, rebuild
from app.projections.thread_map import THREAD_MAP
from app.projections.token_totals import BANDS, DEFAULT_LIMIT, TOKEN_TOTALS, Band, band
from app.projections.views import Standing, Views

MODELS: tuple[ReadModel, ...] = (THREAD_MAP, TOKEN_TOTALS)
"""Every read model of this release."""

__all__ = [  # noqa: RUF022 - constants in plain order, too (test_house)
    "BANDS",
    "Band",
    "Bands",
    "DEFAULT_LIMIT",
    "Follower",
    "MODELS",
    "ModelStatus",
    "NotBuilt",
    "Outcome",
    "ProjectionError",
    "ReadModel",
    "RebuildRunning",
    "Seen",
    "Session",
    "Standing",
    "THREAD_MAP",
    "TOKEN_TOTALS",
    "ThreadView",
    "Threads",
    "UnknownModel",
    "Views",
    "band",
    "bands",
    "content",
    "content_hash",
    "models",
    "named",
    "rebuild",
    "thread",
    "threads",
    "top",
]
