"""Settings that mean nothing here: `HILO_…` variables that are misspelt, or of another release.

pydantic passes them over, and somebody would believe that a secret or a database is set.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

import msgspec
from pydantic_settings import DotEnvSettingsSource

from app.bots import variables_of
from app.setting_sources import environment_name
from app.settings import PREFIX, Settings, SettingsError

_NOT_OURS: Final = ("HILO_TEST_", "HILO_BENCH_")
"""What the tests and the benchmarks are told by."""


class Stray(msgspec.Struct, frozen=True):
    """A variable that no setting has; its value is nobody's business."""

    name: str
    place: str
    """The environment, or a file."""
    near: str = ""
    """The setting that may be meant."""

    def __str__(self) -> str:
        """Say so, and what to do."""
        hint = f"did you mean {self.near}?" if self.near else "hilo config show lists all"
        return f"{self.name} ({self.place}) is no setting, and is not used: {hint}"


def strays(settings: Settings, environ: Mapping[str, str] = os.environ) -> tuple[Stray, ...]:
    """Return the variables of the environment and of `.env` that look like settings and are none.

    What a table of the bots' file names (`webhook_secret_env = "HILO_OF_SALES"`) is none of them.
    """
    named: frozenset[str] = frozenset()
    with suppress(SettingsError):  # whoever needs that file will say what is wrong with it
        named = frozenset(name.upper() for name in variables_of(settings))
    return tuple(
        Stray(name, place, _near(name))
        for place, names in (("environment", environ), (".env", _of_file()))
        for name in _unknown(names, named)
    )


def _of_file() -> Iterable[str]:
    return DotEnvSettingsSource(Settings).env_vars


def _unknown(names: Iterable[str], named: frozenset[str]) -> Iterator[str]:
    known = {environment_name(field) for field in Settings.model_fields} | named
    for name in sorted(names):
        shown = name.upper()  # case means nothing to pydantic
        if shown.startswith(PREFIX) and shown not in known and not shown.startswith(_NOT_OURS):
            yield shown


def _near(name: str) -> str:
    known = [environment_name(field) for field in Settings.model_fields]
    plain = name.removeprefix(PREFIX)
    if plain in known:  # a vendor's own name
        return plain
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.75)), "")
