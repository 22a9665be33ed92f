"""Copies of the repository for the tests that add something to it, and commands run in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.conftest import ROOT

_PARTS: Final = ("flows", "operators", "connectors", "tests", "pyproject.toml")


def linked(tree: Path, *copied: str) -> Path:
    """Fill `tree` with the repository: copies of these files and folders, links to all others."""
    for name in _PARTS:
        _place(ROOT / name, tree, copied)
    return tree


def _place(path: Path, tree: Path, copied: Sequence[str]) -> None:
    name = path.relative_to(ROOT).as_posix()
    if name in copied:
        if path.is_dir():
            shutil.copytree(path, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tree / name)
    elif any(inner.startswith(f"{name}/") for inner in copied):
        (tree / name).mkdir()
        for inner in path.iterdir():
            if inner.name != "__pycache__":
                _place(inner, tree, copied)
    else:
        (tree / name).symlink_to(path)


def add_before(path: Path, before: str, added: str) -> None:
    """Insert `added` before the text `before`, which must occur once in the file."""
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, added + before))


def run(tree: Path, *arguments: str, folder: Path | None = None) -> str:
    """Run Python with the code of the tree, in the folder or in the tree; returns the output, fails with the command.

    Neither settings nor coverage nor the summary of the tests around it reach the command.
    """
    hidden = ("SENTINEL_", "BYTEWAX_", "COVERAGE_", "LLMS_TEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder or tree, env={**kept, "PYTHONPATH": str(tree)}, capture_output=True,
        text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
