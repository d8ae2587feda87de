"""Every read model of this release, in the order in which they are listed."""

from __future__ import annotations

from typing import Final

from app.projections.cleanup_log import CLEANUP_LOG
from app.projections.client_view import CLIENT_VIEW
from app.projections.gateway_health import GATEWAY_HEALTH
from app.projections.media import MEDIA
from app.projections.model import ReadModel
from app.projections.thread_changes import THREAD_CHANGES
from app.projections.thread_map import THREAD_MAP
from app.projections.token_totals import TOKEN_TOTALS
from app.projections.turn_latency import TURN_LATENCY
from app.projections.usage import USAGE

MODELS: Final[tuple[ReadModel, ...]] = (
    THREAD_MAP,
    TOKEN_TOTALS,
    CLIENT_VIEW,
    CLEANUP_LOG,
    USAGE,
    TURN_LATENCY,
    THREAD_CHANGES,
    MEDIA,
    GATEWAY_HEALTH,
)
"""A new read model is a file of its own and a line here."""
