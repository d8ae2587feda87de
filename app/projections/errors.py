"""What can go wrong with read models.

ProjectionError
├── NotBuilt            the read model has no tables yet: its first build is not done
├── NotThatState        what was asked of a read model does not fit the state it is in
├── OtherVersion        the rows that are there are of a release with other columns
├── RebuildRunning      another process rebuilds the same views: one at a time
├── RebuildFailed       a rebuild ended without switching; what was live still is
├── UnknownModel        no read model is called so
└── UnknownTable        no table of a read model is called so
"""

from __future__ import annotations

from collections.abc import Sequence


class ProjectionError(Exception):
    """Base of what can go wrong with read models."""


class NotBuilt(ProjectionError):
    """The read model has no tables yet."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(
            f"{model} has not been built yet: hilo serve builds it, or hilo projections rebuild"
        )


class NotThatState(ProjectionError):
    """What was asked of a read model does not fit the state it is in."""

    def __init__(self, model: str, state: str, asked: str, reason: str) -> None:
        self.model, self.state = model, state
        super().__init__(f"{model} is {state}, cannot {asked}: {reason}")


class OtherVersion(ProjectionError):
    """The rows that are there cannot answer: they were built by another release."""

    def __init__(self, model: str, version: int) -> None:
        self.model = model
        super().__init__(
            f"{model} still has the rows of its version {version} and is being rebuilt for this "
            "release: ask again when hilo projections list says live"
        )


class RebuildRunning(ProjectionError):
    """Another rebuild of the same views is under way."""


class RebuildFailed(ProjectionError):
    """A rebuild ended before it could switch. What was live is untouched."""


class UnknownModel(ProjectionError):
    """No read model is called so."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"there is no read model {name!r}: there are {', '.join(known)}")


class UnknownTable(ProjectionError):
    """No table of a read model is called so."""

    def __init__(self, model: str, tables: Sequence[str]) -> None:
        super().__init__(f"{model} has no such table: it has {', '.join(tables)}")
