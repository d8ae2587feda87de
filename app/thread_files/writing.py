"""One writing of the thread files, in the worker process."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from app import stores
from app.settings import Settings
from app.thread_files.content import Content
from app.thread_files.place import Place
from eventstore.keyring import Keyring
from eventstore.store import LogReader


class Written(msgspec.Struct, frozen=True):
    """What was written."""

    people: int
    unopened: int
    """People of whom something could not be opened though nobody was forgotten."""
    backup: bool
    kept: tuple[str, ...]
    """New names of files that somebody else had written."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `thread-files` takes beside the worker's other arguments."""
    parser.add_argument("--tmp", type=Path, help="for thread-files: the directory, of all bots")
    parser.add_argument("--backup", action="store_true", help="for thread-files: the backup, too")


def place_of(settings: Settings, keyring: Keyring) -> Place:
    """Return where the bot's thread files are."""
    owner = keyring.fingerprint("thread files").hex()
    return Place(settings.tmp_directory, owner=owner, log=stores.log_place(settings))


def write(settings: Settings, log: LogReader, *, backup: bool) -> Written:
    """Write `threads.json`, with `backup` or when somebody was forgotten the backup as well.

    If somebody was forgotten and the files cannot be written, they are removed: no file is better
    than one that still holds that person. Raises `OSError`, `ProjectionError`, `EventStoreError`
    or `sqlite3.Error`.
    """
    keyring = stores.open_keyring(settings)
    try:
        with place_of(settings, keyring).held() as held:
            destructions = keyring.destructions()
            forgetting = destructions != held.destructions
            try:
                content = Content(settings.bot_directory / "views.db", log, keyring)
                try:
                    held.replace(
                        lambda file: file.writelines(content.pieces()), backup=backup or forgetting
                    )
                finally:
                    content.close()
                held.knows(destructions)
            except BaseException:
                if forgetting:
                    held.remove()
                raise
            return Written(
                people=content.people,
                unopened=content.unopened,
                backup=backup or forgetting,
                kept=held.kept,
            )
    finally:
        keyring.close()
