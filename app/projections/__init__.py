"""Read models: what the log says, in tables, kept up to date and never asked to be true.

`Views` is a bot's `views.db`; a `Follower` keeps the models in it at the end of the log, in this
process or in a `FollowerProcess`; the functions ask, and so do the modules `analytics`, `cleanups`,
`clients`, `timeline`. `past` builds read models as they were; `operating` is for operators.
Everything here can be deleted and made again by `rebuild`.
"""

from app.projections import (
    analytics,
    cleanups,
    clients,
    operating,
    past,
    prices,
    timeline,
)
from app.projections.asking import Span
from app.projections.content import content, content_hash
from app.projections.errors import (
    NotBuilt,
    NotThatState,
    OtherVersion,
    ProjectionError,
    RebuildRunning,
    UnknownModel,
    UnknownTable,
)
from app.projections.follower import Follower
from app.projections.following import FollowerProcess
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
from app.projections.registry import MODELS
from app.projections.skipping import Skip, SkipLedger
from app.projections.thread_map import THREAD_MAP
from app.projections.token_totals import BANDS, DEFAULT_LIMIT, TOKEN_TOTALS, Band, band
from app.projections.views import Standing, Views

__all__ = [  # noqa: RUF022 - constants in plain order, too (test_house)
    "BANDS",
    "Band",
    "Bands",
    "DEFAULT_LIMIT",
    "Follower",
    "FollowerProcess",
    "MODELS",
    "ModelStatus",
    "NotBuilt",
    "NotThatState",
    "OtherVersion",
    "Outcome",
    "ProjectionError",
    "ReadModel",
    "RebuildRunning",
    "Seen",
    "Session",
    "Skip",
    "SkipLedger",
    "Span",
    "Standing",
    "THREAD_MAP",
    "TOKEN_TOTALS",
    "ThreadView",
    "Threads",
    "UnknownModel",
    "UnknownTable",
    "Views",
    "analytics",
    "band",
    "bands",
    "cleanups",
    "clients",
    "content",
    "content_hash",
    "models",
    "named",
    "operating",
    "past",
    "prices",
    "rebuild",
    "thread",
    "threads",
    "timeline",
    "top",
]
