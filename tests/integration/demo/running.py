"""`hilo demo` as a person runs it, and as one ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

DEMO = (sys.executable, "-m", "app.cli", "demo", "--users", "6", "--messages", "3")


def demo(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(cwd), "PYTHONPATH": str(Path.cwd()), **variables}
    return subprocess.run(
        [*DEMO, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def ended_by(number: signal.Signals, *more: str, cwd: Path) -> list[psutil.Process]:
    """Start a demo and end it by a signal while people write; return the children that outlive it.

    Who interrupts it finds nothing of it left behind.
    """
    environment = {**os.environ, "TMPDIR": str(cwd), "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        (*DEMO, *more),
        cwd=cwd,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"people write" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.send_signal(number)
        process.stderr.read()
        code = process.wait(30)
    _, alive = psutil.wait_procs(children, timeout=20)
    if number == signal.SIGINT:
        assert code == 130
        assert list(cwd.iterdir()) == []
    return alive
