"""Moves of a bot, or of the control log, on record: who moved what from where to where."""

from __future__ import annotations

from app import control, stores
from app.moving import Place
from app.settings import Settings


def record_move(installation: Settings, origin: Place, goal: Place) -> None:
    """Record who moves a bot, from where to where. Raises `LogUnavailable`.

    In the control log of the installation. While that is empty, because it is to be moved as well
    and has not been, in the one beside the bot's log: it is taken along.
    """
    places = (installation, origin.installation, goal.installation)
    used = next((place for place in places if _has_entries(place)), installation)
    about = (f"from {origin.lasting}", f"to {goal.lasting}")
    control.acted(used, "migrate-store", bot=origin.settings.bot, about=about)


def record_move_of_control(origin: Place, goal: Place) -> None:
    """Record who moved the control log, in the one that is used from now on: see `record_move`."""
    about = (f"from {origin.lasting}", f"to {goal.lasting}")
    control.acted(goal.installation, "migrate-store --control", bot="", about=about)


def _has_entries(installation: Settings) -> bool:
    if not stores.has_control_log(installation):
        return False
    log = stores.open_control_log(installation)
    try:
        return log.head().position > 0
    finally:
        log.close()
