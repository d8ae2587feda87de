"""The house rules that no linter knows: what files may not name, and how front doors look."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
MADE_HERE = frozenset({"build", "dist", "htmlcov", "node_modules", "__pycache__"})

# Where packages come from is the machine's business: hashes say what they are. The patterns are put
# together from pieces so that this file does not name what it forbids.
REGISTRY = re.compile(
    r"\b(?:" + "|".join(("py" + "pi", "python" + "hosted", "npm" + "js")) + r")\.[a-z]{2,}\b"
    r"|\b(?:extra-)?index" + r"-url\b|--find" + r"-links\b|/simp" + r"le/",
    re.IGNORECASE,
)
WORKPLACE = re.compile(
    r"(?<![\w.:/<-])/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "fa" + "rm", "ho" + "me")) + r")/\w"
    r"|(?<![\w.])/opt/" + "py" + "pi"
)


def files() -> Iterator[Path]:
    """Every file of the project that is not made by a tool; hidden folders only where ours."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name == ".ci"
            or not (name.startswith(".") or name in MADE_HERE or name.endswith(".egg-info"))
        ]
        # `.git` is a file where this checkout is a linked worktree: it says where the other is
        yield from (
            Path(folder, name)
            for name in names
            if name != ".git" and not name.startswith(".coverage")
        )


def forbidden(text: str) -> list[str]:
    """What `text` names of package registries and of the machine it was written on."""
    return [found.group(0) for rule in (REGISTRY, WORKPLACE) for found in rule.finditer(text)]


def has_words(source: str) -> bool:
    """Tell whether the `__init__.py` whose text this is says what is behind it.

    That its `__all__` is sorted is ruff's to say (RUF022).
    """
    return ast.get_docstring(ast.parse(source)) is not None


def test_no_file_names_a_package_registry_or_the_machine_it_was_written_on() -> None:
    found = {}
    for path in files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if named := forbidden(text) + forbidden(f" {path.relative_to(ROOT)}"):
            found[str(path.relative_to(ROOT))] = named
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "--index" + "-url https://example.org/",
        "https://files.python" + "hosted.org/packages/a",
        "see https://py" + "pi.org/project/hilo",
        "--find" + "-links wheels",
        "cd /wo" + "rk/main",
        'PATH = "/ro' + 'ot/bin"',
        "file:///opt/py" + "pi/files",
    ],
)
def test_a_registry_or_a_workplace_is_found_when_named(line: str) -> None:
    assert forbidden(line)


def test_every_front_door_says_what_is_behind_it() -> None:
    doors = [path for path in files() if path.name == "__init__.py"]
    assert [str(path) for path in doors if not has_words(path.read_text("utf-8"))] == []
    assert doors


def test_a_front_door_without_words_is_found() -> None:
    assert not has_words("import a")
    assert has_words('"""A."""')


LOCKED = re.compile(
    r"^([\w.-]+)(?:\[([\w,-]+)\])?==(\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)


def locked() -> dict[str, frozenset[str]]:
    """What `requirements.lock` pins: the extras of each package that it asks for."""
    entries = LOCKED.findall((ROOT / "requirements.lock").read_text("utf-8"))
    return {
        canonicalize_name(name): frozenset(filter(None, extras.split(",")))
        for name, extras, _, _ in entries
    }


def extras_asked_for(locked: dict[str, frozenset[str]]) -> dict[str, set[str]]:
    """The extras that installed, locked packages ask of others, by the name of the other."""
    asked: dict[str, set[str]] = {}
    for name, extras in locked.items():
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if not requirement.extras:
                continue
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras)):
                asked.setdefault(canonicalize_name(requirement.name), set()).update(
                    requirement.extras
                )
    return asked


def test_everything_declared_is_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    wanted = {canonicalize_name(Requirement(line).name) for line in declared}
    assert wanted <= locked().keys()


def test_every_extra_that_is_asked_for_is_locked_as_one() -> None:
    # The pip of Python 3.11 takes `coverage[toml]` and `coverage` for two packages: with the
    # second alone in the lock, it looks the first one up, and refuses a newer one that it finds.
    pins = locked()
    asked = extras_asked_for(pins)
    assert {name: some - pins[name] for name, some in asked.items() if some - pins[name]} == {}
    assert "toml" in asked["coverage"]


def test_the_lock_is_nothing_but_pins_hashes_and_comments() -> None:
    allowed = re.compile(
        r"(#.*| +#.*|[\w.-]+(\[[\w,-]+\])?==\S+ \\| +--hash=sha256:[0-9a-f]{64}( \\)?|)"
    )
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    assert [line for line in lines if not allowed.fullmatch(line)] == []
