"""The house rules that no linter knows: what files may not name, and how front doors look."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def test_everything_declared_is_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    wanted = {re.split(r"[^\w-]", line)[0] for line in declared}
    entries = re.findall(
        r"^([\w-]+)==\S+ \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        (ROOT / "requirements.lock").read_text("utf-8"),
        re.MULTILINE,
    )
    assert wanted <= {name for name, _ in entries}


def test_the_lock_is_nothing_but_pins_hashes_and_comments() -> None:
    allowed = re.compile(r"(#.*| +#.*|[\w-]+==\S+ \\| +--hash=sha256:[0-9a-f]{64}( \\)?|)")
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    assert [line for line in lines if not allowed.fullmatch(line)] == []
