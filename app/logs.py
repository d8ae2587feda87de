"""Structured logs: `DATA/logs/technical.log`, one line an event, the category first.

A line is `<time> <level> CATEGORY key=value …`; operators grep for categories. No personal data is
ever logged: a person is a pseudonym, and errors are named by their class. Technical errors go to
the file, not to the terminal.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence
from logging.handlers import TimedRotatingFileHandler, WatchedFileHandler
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from eventstore.lasting import Lasting

_KEEP_DAYS = 30


class _Seldom(logging.FileHandler):
    """Says on the terminal that its file cannot be written, seldom, and goes on trying.

    `logging` itself would say so for each line, with a traceback: on a full disk more than the
    lines.
    """

    def __init__(self, filename: Path, **options: Any) -> None:  # noqa: ANN401 - the library's signature
        """Take the library's options unchanged."""
        super().__init__(filename, **options)
        self._failing = Lasting()
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self._failed = False
        try:
            super().emit(record)
        except OSError:  # raised by one of the library's handlers where the file cannot be opened
            self.handleError(record)
        if not self._failed:
            self._failing.over()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Say what keeps lines from the file, but not for each of them."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._failed = True
        if self._failing.met():
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"{self.baseFilename} cannot be written: {error.strerror}\n")
                sys.stderr.flush()


class _Rotating(_Seldom, TimedRotatingFileHandler):
    """Of the process that keeps the file."""


class _Watched(_Seldom, WatchedFileHandler):
    """Of processes that write to it as well."""


def configure(directory: Path | None, *, console: TextIO | None = None) -> None:
    """Send every log line to `directory`/technical.log, or only to `console` if it is None."""
    handlers: list[logging.Handler] = []
    if directory is not None:
        handlers.append(
            _Rotating(
                _made(directory),
                when="midnight",
                backupCount=_KEEP_DAYS,
                encoding="utf-8",
                delay=True,
            )
        )
    if console is not None:
        handlers.append(logging.StreamHandler(console))
    _use(handlers)


def join(directory: Path) -> None:
    """Send every log line to the `directory`/technical.log that another process rotates."""
    _use([_Watched(_made(directory), encoding="utf-8", delay=True)])


def file_in(directory: Path) -> Path:
    """Return where the log lines of a server are that keeps them in `directory`."""
    return directory / "technical.log"


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return file_in(directory)


def _use(handlers: Sequence[logging.Handler]) -> None:
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        with contextlib.suppress(OSError):  # what it still has cannot be written
            old.close()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _category_first,
            _render,
        ],
    )
    for handler in handlers or [logging.NullHandler()]:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    for noisy in ("httpx2", "httpcore2", "openai", "uvicorn.access", "apscheduler"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _exception_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace a traceback by names and places: an exception's text may quote what it choked on."""
    info = event.pop("exc_info", None)
    if info is None or info is False:
        return event
    error = info if isinstance(info, BaseException) else _current(info)
    if error is not None:
        event["error"] = type(error).__name__
        event["where"] = _places(error)
    return event


def _current(info: object) -> BaseException | None:
    if isinstance(info, tuple):
        return info[1] if isinstance(info[1], BaseException) else None
    return sys.exc_info()[1]


def _places(error: BaseException) -> str:
    places: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).stem}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " ".join(places[-6:])


def _category_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["event"] = str(event.get("event", "")).replace("\n", " ")
    return event


_FIELDS = structlog.processors.KeyValueRenderer(sort_keys=False)


def _render(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Render `<time> <level> CATEGORY k=v …`."""
    head = " ".join(str(event.pop(name, "-")) for name in ("timestamp", "level", "event"))
    fields = _FIELDS(logger, method, event)
    return f"{head} {fields}" if fields else head


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _exception_name,
]
