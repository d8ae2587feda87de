"""An export of the log: constant memory, a file that is whole or not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from app.cli.failures import CannotReach, FoundProblem, WrongUsage
from app.cli.output import Bar, bar
from app.cli.recorded import Presenter
from app.cli.selection import Selection, pages
from app.exports import LOG_COLUMNS, Format, NoParquet, RowWriter, flat_event, writer
from app.whole import whole_file

if TYPE_CHECKING:
    from app.installation import Installation
    from eventstore.types import Position


class Export:
    """One export: from a fixed position to a fixed position of one epoch."""

    def __init__(
        self,
        here: Installation,
        wanted: Selection,
        *,
        after: Position,
        up_to: Position | None,
        opening: bool,
        format_: Format = "jsonl",
    ) -> None:
        """Export up to `up_to`, or to where the log ends now. `opening` opens sealed fields."""
        head = here.log.head()
        self._own = here.settings.data
        self._log = here.log
        self._wanted = wanted
        self._format = format_
        self._epoch = head.epoch
        self.after = after
        self.up_to = head.position if up_to is None else up_to
        self.presenter = Presenter(here.codec, head.epoch, here.sealer if opening else None)
        self.count = 0
        """Events written so far."""

    def to_stdout(self) -> None:
        """Write the rows to stdout."""
        sys.stdout.flush()
        self._write(sys.stdout.buffer, shown=not sys.stdout.isatty())
        sys.stdout.buffer.flush()

    def to_file(self, path: Path, *, replace: bool) -> None:
        """Write the rows to a file that appears when it is complete and on the disk.

        A pipe or a device that stands at `path` is written to as it is. Raises `WrongUsage` if
        nothing can be written there, or a file stands there that is not to be replaced;
        `CannotReach` if not everything could be written.
        """
        with whole(path, self._own, replace=replace) as file:
            self._write(file, shown=True)

    def _write(self, out: BinaryIO, *, shown: bool) -> None:
        total = self.up_to - self.after
        try:
            rows = writer(self._format, out, LOG_COLUMNS)
        except NoParquet as error:
            raise WrongUsage(str(error)) from None
        with bar("exporting", total, shown=shown) as progress:
            self._write_pages(rows, progress)
        rows.close()
        if self._log.head().epoch != self._epoch:
            msg = "the log was restored during the export: start it again"
            raise FoundProblem(msg)

    def _write_pages(self, rows: RowWriter, progress: Bar) -> None:
        as_json = self.presenter.as_json
        flat = self._format != "jsonl"
        for position, page in pages(self._log, self._wanted, after=self.after, up_to=self.up_to):
            for event in page:
                row = as_json(event)
                rows.write(flat_event(row) if flat else row)
            self.count += len(page)
            progress.at(position - self.after)


@contextmanager
def whole(path: Path, own: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """Give a file that stands at `path` when it is complete; a device as it is.

    A file that is there already is left alone unless it is to be replaced, and nothing in the
    directory `own`, where logs and keys are, is written. Raises `WrongUsage`.
    """
    target, device = _target(path)
    if target.is_relative_to(own.resolve()):
        msg = f"--output {path} is in {own}, where logs and keys are: name a file elsewhere"
        raise WrongUsage(msg)
    if target.is_file() and not replace:
        msg = f"--output {path} is there already: name another file, or replace it with --force"
        raise WrongUsage(msg)
    with (_opened if device else _whole)(path, target) as file:
        yield file


def _target(path: Path) -> tuple[Path, bool]:
    """Return what is to be written, and whether it is a pipe or a device. Raises `WrongUsage`."""
    try:
        target = path.resolve()
        if target.is_dir():
            msg = f"--output {path} is a directory: name a file"
            raise WrongUsage(msg)
        if not target.parent.is_dir():
            msg = f"--output {path}: there is no directory {target.parent}"
            raise WrongUsage(msg)
        return target, target.exists() and not target.is_file()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise _unusable(path, error) from error


@contextmanager
def _opened(path: Path, target: Path) -> Iterator[BinaryIO]:
    try:
        device = target.open("wb")
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        with device:
            yield device
    except BrokenPipeError:  # its reader has seen enough
        raise
    except OSError as error:
        raise _unfinished(path, error, "what came before is there") from error


@contextmanager
def _whole(path: Path, target: Path) -> Iterator[BinaryIO]:
    """Give a file beside `target` that takes its place, durably, unless something is raised."""
    begun = False
    try:
        with whole_file(target) as file:  # its mode is 0600: texts may be in it
            begun = True
            yield file
    except OSError as error:
        raise (
            _unfinished(path, error, "it is as it was") if begun else _unusable(path, error)
        ) from error


def _unusable(path: Path, error: OSError | RuntimeError) -> WrongUsage:
    reason = getattr(error, "strerror", None) or error
    return WrongUsage(
        f"--output {path} cannot be written ({reason}): name a file in a directory that "
        "is yours, or - for stdout"
    )


def _unfinished(path: Path, error: OSError, state: str) -> CannotReach:
    return CannotReach(f"--output {path} could not be written whole ({error.strerror}): {state}")
