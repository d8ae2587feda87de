"""Structured logs: `DATA/logs/technical.log`, one line an event, the category first.

A line is `<time> <level> CATEGORY key=value …`; operators grep for categories. No personal data is
ever logged: a person is a pseudonym, and errors are named by their class. Technical errors go to
the file, not to the terminal.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from logging.handlers import TimedRotatingFileHandler, WatchedFileHandler
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_KEEP_DAYS = 30


def configure(directory: Path | None, *, console: TextIO | None = None) -> None:
    """Send every log line to `directory`/technical.log, or only to `console` if it is None."""
    handlers: list[logging.Handler] = []
    if directory is not None:
        handlers.append(
            TimedRotatingFileHandler(
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
    _use([WatchedFileHandler(_made(directory), encoding="utf-8", delay=True)])


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
    import sys  # noqa: PLC0415 - only when something failed

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
