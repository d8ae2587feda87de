"""Whatever the API's own description allows is answered as that description says (schemathesis)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.api.v1 import reading
from tests.integration.turns.stage import Stage

Key = Callable[..., dict[str, str]]
EXAMPLES = 3
"""Of each operation, at random, beside those of the description and every bound in it."""


async def run(
    stage: Stage, headers: dict[str, str], directory: Path, *only: str
) -> tuple[int, str]:
    """Let schemathesis ask a running server; return its exit code and what it says."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{stage.url}/v1/openapi.json"),
        *("--header", f"Authorization: {headers['authorization']}"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
        *("--seed", "20261121", "--generation-deterministic", "--no-color", "--workers", "1"),
        # a stream has no end, and each export is a process
        *("--exclude-path-regex", "^/v1/(events/stream|exports/.*)$"),
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, said.decode()


async def test_every_question_that_the_description_allows_is_answered_as_it_says(
    stage: Stage, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WAIT_SECONDS", 0.05)  # most positions asked for never come
    await stage.stop_bot()
    await stage.start_bot(key_rate=0, quiet_seconds=3600, longest_seconds=7200)
    code, said = await run(stage, key("auditor"), tmp_path)
    assert code == 0, said
