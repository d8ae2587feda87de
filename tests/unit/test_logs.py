"""The technical log: what becomes of it when it cannot be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from app import logs

FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    logs.configure(None)


@pytest.mark.skipif(not FULL.exists(), reason="no such device here")
@pytest.mark.parametrize("begin", [logs.configure, logs.join])
def test_a_full_disk_is_said_once_and_not_for_each_line(
    tmp_path: Path, begin: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    file = logs.file_in(tmp_path)
    file.symlink_to(FULL)
    begin(tmp_path)
    for _ in range(5):
        structlog.get_logger().warning("WEBHOOK_UNAVAILABLE", error="LogUnavailable")
    assert capsys.readouterr().err == f"{file} cannot be written: No space left on device\n"


@pytest.mark.parametrize("begin", [logs.configure, logs.join])
def test_it_goes_on_when_there_is_room_again(
    tmp_path: Path, begin: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (obstacle := logs.file_in(tmp_path)).mkdir()
    begin(tmp_path)
    logger = structlog.get_logger()
    logger.warning("FIRST")
    obstacle.rmdir()
    logger.warning("SECOND")
    assert capsys.readouterr().err.count("cannot be written") == 1
    assert "SECOND" in obstacle.read_text("utf-8")
