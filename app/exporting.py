"""An export in the worker process: of the log, or of one read model, to standard output.

It is killed when nobody reads it any more, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import gzip
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from app import exports, stores
from app.aggregates.catalogue import EVENT_CLASSES
from app.exports.formats import Column, Row
from app.exports.selection import Selection
from app.projections import NotBuilt, ReadModel, UnknownTable, past
from app.projections.presenting import Presenter
from app.projections.skipping import Skip
from app.settings import Settings
from eventstore.codec import Codec
from eventstore.keyring import Keyring
from eventstore.sealing import Sealer
from eventstore.store import LogStore
from eventstore.types import Position, StreamName


class CannotExport(Exception):
    """The export cannot be made like this; the message says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `export` takes beside the worker's other arguments."""
    parser.add_argument("--format", choices=exports.FORMATS, default="jsonl")
    parser.add_argument("--table", help="for export: of the --model; default: its first")
    parser.add_argument("--gzip", action="store_true", help="for export: compress it")
    parser.add_argument("--after", type=int, default=0, help="for export: events after this one")
    parser.add_argument("--type", action="append", default=[], help="for export: stored types")
    parser.add_argument("--stream", default="", help="for export: only this stream's events")
    parser.add_argument("--open", action="store_true", help="for export: open what is sealed")


def export(
    options: argparse.Namespace,
    settings: Settings,
    log: LogStore,
    models: Sequence[ReadModel],
    skips: Sequence[Skip],
) -> int:
    """Write what `options` say; return the exit code. Raises `CannotExport` before it begins."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what is scratch is removed
    keyring = stores.open_keyring(settings) if options.open else None
    try:
        with tempfile.TemporaryDirectory(prefix="hilo-export-") as scratch:
            if options.model:
                if len(models) != 1:
                    msg = "one read model is exported at a time"
                    raise CannotExport(msg)
                columns, rows = _model(
                    options, settings, log, models[0], skips, keyring=keyring, scratch=Path(scratch)
                )
            else:
                columns, rows = _log(options, log, keyring)
            _write(options, columns, rows)
    except (exports.NoParquet, UnknownTable) as error:
        raise CannotExport(error) from None
    finally:
        if keyring is not None:
            keyring.close()
    return 0


def _log(
    options: argparse.Namespace, log: LogStore, keyring: Keyring | None
) -> tuple[Sequence[Column], Iterable[Row]]:
    head = log.head()
    sealer = None if keyring is None else Sealer(keyring)
    present = Presenter(Codec(EVENT_CLASSES), head.epoch, sealer)
    stream = StreamName(options.stream) if options.stream else None
    wanted = Selection(tuple(options.type) or None, stream)
    up_to = Position(options.position or head.position)
    rows = exports.of_log(log, wanted, present, after=Position(options.after), up_to=up_to)
    flat = rows if options.format == "jsonl" else map(exports.flat_event, rows)
    return exports.LOG_COLUMNS, flat


def _model(  # noqa: PLR0913 - what of what, as of when, and where
    options: argparse.Namespace,
    settings: Settings,
    log: LogStore,
    model: ReadModel,
    skips: Sequence[Skip],
    *,
    keyring: Keyring | None,
    scratch: Path,
) -> tuple[Sequence[Column], Iterable[Row]]:
    table = exports.table_of(model, options.table)
    path = settings.bot_directory / "views.db"
    if options.position:
        path = scratch / "past.db"
        past.build_at(path, log, [model], Position(options.position), skips=skips).close()
    elif not path.is_file():
        raise NotBuilt(model.name)
    sealer = None if keyring is None else Sealer(keyring)
    return exports.table_rows(path, scratch / "rows.db", table, log, sealer)


def _write(options: argparse.Namespace, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    out: BinaryIO = sys.stdout.buffer
    packed = gzip.GzipFile(fileobj=out, mode="wb", compresslevel=5) if options.gzip else None
    writer = exports.writer(options.format, cast("BinaryIO", packed or out), columns)
    for row in rows:
        writer.write(row)
    writer.close()
    if packed is not None:
        packed.close()
    out.flush()
