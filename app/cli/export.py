"""An export of the log as JSONL: constant memory, a file that is whole or not there."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from app.cli.failures import FoundProblem, WrongUsage
from app.cli.output import Bar, bar, json_line
from app.cli.recorded import Presenter
from app.cli.selection import Selection, pages

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
    ) -> None:
        """Export up to `up_to`, or to where the log ends now. `opening` opens sealed fields."""
        head = here.log.head()
        self._log = here.log
        self._wanted = wanted
        self._epoch = head.epoch
        self.after = after
        self.up_to = head.position if up_to is None else up_to
        self.presenter = Presenter(here.codec, head.epoch, here.sealer if opening else None)
        self.count = 0
        """Events written so far."""

    def to_stdout(self) -> None:
        """Write the lines to stdout."""
        self._write(sys.stdout.write, shown=not sys.stdout.isatty())

    def to_file(self, path: Path) -> None:
        """Write the lines to a file that appears when it is complete and on the disk.

        A pipe or a device that stands at `path` is written to as it is.
        """
        target = path.resolve()
        if target.is_dir():
            msg = f"--output {path} is a directory: name a file"
            raise WrongUsage(msg)
        if not target.parent.is_dir():
            msg = f"--output {path}: there is no directory {target.parent}"
            raise WrongUsage(msg)
        if target.exists() and not target.is_file():
            with target.open("w", encoding="utf-8") as device:
                self._write(device.write, shown=True)
            return
        with _whole(target) as file:
            self._write(file.write, shown=True)

    def _write(self, write: Callable[[str], object], *, shown: bool) -> None:
        total = self.up_to - self.after
        with bar("exporting", total, shown=shown) as progress:
            self._write_pages(write, progress)
        if self._log.head().epoch != self._epoch:
            msg = "the log was restored during the export: start it again"
            raise FoundProblem(msg)

    def _write_pages(self, write: Callable[[str], object], progress: Bar) -> None:
        as_json = self.presenter.as_json
        for position, page in pages(self._log, self._wanted, after=self.after, up_to=self.up_to):
            for event in page:
                write(json_line(as_json(event)) + "\n")
            self.count += len(page)
            progress.at(position - self.after)


@contextmanager
def _whole(target: Path) -> Iterator[TextIO]:
    """Give a file beside `target` that takes its place, durably, unless something is raised."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
