"""Decisions upon the control log: by several at once, and after a newer release was there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app import access, stores
from app.aggregates.access import KEYS
from app.settings import Settings, load
from eventstore.types import Append, NewEvent, Version, new_append_id


def test_several_who_make_keys_at_once_all_get_theirs(tmp_path: Path) -> None:
    settings = load(data=tmp_path)
    with ThreadPoolExecutor(4) as several:
        made = set(several.map(lambda _: make(settings), range(12)))
    assert {key.id for key in access.keys(settings)} == made
    assert len(made) == 12


def test_what_a_newer_release_wrote_is_passed_over_and_counted(tmp_path: Path) -> None:
    settings = load(data=tmp_path)
    first = make(settings)
    log = stores.open_control_log(settings)
    newer = (NewEvent("KeyMoved@9", b"\x80"),)
    log.append_batch([Append(KEYS, Version(1), newer, log.head().epoch, new_append_id())])
    log.close()
    assert {first, make(settings)} == {key.id for key in access.keys(settings)}


def make(settings: Settings) -> str:
    key_id, _ = access.create(settings, "auditor", by="ana@desk", expires_at=None)
    return key_id
