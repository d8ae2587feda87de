"""A child process whose output somebody else reads: started, streamed, and ended with them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from typing import IO, Final

CHUNK: Final = 64 * 1024
_GRACE_SECONDS: Final = 2.0


class ChildFailed(Exception):
    """The child ended badly; the message is the last line that it wrote to standard error."""

    def __init__(self, code: int, said: str) -> None:
        self.code = code
        super().__init__(said or f"its process ended with {code}")


class Piped:
    """One child and what it writes. It waits whenever the reader does."""

    def __init__(
        self, process: asyncio.subprocess.Process, errors: IO[bytes], first: bytes
    ) -> None:
        """See `piped`."""
        self._process = process
        self._errors = errors
        self._first = first

    @property
    def ended(self) -> bool:
        """Whether the child has ended."""
        return self._process.returncode is not None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what the child writes; end it when nobody goes on. Raises `ChildFailed`."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        try:
            if self._first:
                yield self._first
            while chunk := await self._process.stdout.read(CHUNK):
                yield chunk
            await self.end()
        finally:
            await self.kill()

    async def end(self) -> None:
        """Wait until the child ends. Raises `ChildFailed` if it does not end well."""
        code = await self._process.wait()
        if code:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            raise ChildFailed(code, said[-1] if said else "")

    async def kill(self) -> None:
        """End the child if it has not ended. Idempotent."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(_GRACE_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        self._errors.close()


async def piped(command: Sequence[str]) -> Piped:
    """Start a child; return when it has written something, or ended well. Raises `ChildFailed`."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        limit=CHUNK,
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for
    child = Piped(process, errors, b"")
    try:
        first = await process.stdout.read(CHUNK)
        if not first:
            await child.end()
    except BaseException:
        await child.kill()
        raise
    return Piped(process, errors, first)
