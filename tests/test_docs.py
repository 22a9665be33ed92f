"""Everything that the documents name exists: files, anchors, make targets, commands and their options, settings."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.__main__ import COMMANDS
from flows.settings.model import Settings
from flows.settings.schema import setting_at, settings_of
from tests.conftest import ROOT
from tests.test_architecture import PACKAGES, tracked

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"(?ms)^```.*?^```$")

documents = pytest.mark.parametrize(
    "path", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in tracked() if p.suffix == ".md"]
)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    heads = re.findall(r"(?m)^#+ (.+)$", FENCE.sub("", path.read_text()))
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))


@documents
def test_links_resolve(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{link} is not there"
        assert found.is_relative_to(ROOT), f"{link} points out of the repository"
        if anchor:
            assert anchor in anchors(found), f"{link}: no such heading"


@documents
def test_commands_exist(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"(?:^|`|\$ )make ([a-z]+)", text, re.MULTILINE):
        assert target in targets(), f"make {target}"
    started = re.findall(r"python -m ([a-z_.]+[a-z_])([^`\n]*)", text)
    for command, options in re.findall(r"(?m)(?:^|bin/|`)llm-sentinel (?!cannot start)([a-z]+)\b(?!:)([^`\n]*)", text):
        assert command in COMMANDS, f"llm-sentinel {command}"
        if " --" in options:
            started.append((f"flows.{command}", options))
    for module, options in started:
        found = importlib.util.find_spec(module)
        if found is not None and found.submodule_search_locations is not None:
            found = importlib.util.find_spec(f"{module}.__main__")
        assert found is not None, f"python -m {module}"
        if module.split(".")[0] in PACKAGES:
            assert found.origin is not None
            origin = Path(found.origin)
            code = (origin.with_name("__main__.py") if origin.name == "__init__.py" else origin).read_text()
            unknown = [o for o in re.findall(r" (--[a-z-]+)", options) if f'"{o}"' not in code]
            assert unknown == [] or '"--{name}"' in code, f"python -m {module}: {unknown}"


@documents
def test_settings_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    names = {"__".join(s.key).upper() for s in settings_of(Settings)} | {"CONFIG"}
    for name in re.findall(r"SENTINEL_([A-Z][A-Z0-9_]*[A-Z0-9])\b(?!_)", text):
        key = tuple(name.lower().split("__"))
        assert name in names or name == "" or setting_at(Settings, key) is not None, f"SENTINEL_{name}"
    sections = "|".join(Settings.model_fields)
    for key in re.findall(rf"`((?:{sections})(?:\.[a-z_]+)+)`", text):
        parts = tuple(key.split("."))
        is_section = any(s.key[: len(parts)] == parts for s in settings_of(Settings))
        is_file = (ROOT / key).exists() or key.endswith((".py", ".toml"))
        assert is_section or is_file or setting_at(Settings, parts) is not None, key


@documents
def test_files_that_are_named_exist(path: Path) -> None:
    """Checks paths in backticks that begin with a tracked folder; commands make their files in other folders."""
    places = {p.relative_to(ROOT).parts[0] for p in tracked() if p.parent != ROOT}
    folders = "|".join(sorted(name for name in places if not name.startswith(".")))
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", path.read_text()):
        assert (ROOT / name).exists(), name


@documents
def test_tests_that_are_named_exist(path: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", path.read_text()):
        code = (ROOT / file).read_text()
        assert re.search(rf"(?m)^def {name}\(", code), f"{file} has no {name}"


def test_documents_hold_on_a_clean_clone_whatever_a_command_has_begun(tmp_path: Path) -> None:
    for path in tracked():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for command in (["git", "init", "--quiet"], ["git", "add", "--all"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    for folder in ("build", "runs", ".services"):
        (tmp_path / folder).mkdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_docs.py", "-k", "not clean"]
    environ = {name: value for name, value in os.environ.items() if name != "LLMS_TEST_SUMMARY"}  # for this run alone
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout


def test_every_law_is_proven_by_all_its_tests() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    laws = re.findall(r"(?m)^def (test_law_\w+)\(", (ROOT / "tests" / "flows" / "test_laws.py").read_text())
    assert [name for name in laws if name not in text] == []
    sections = re.findall(r"(?ms)^## (\d)\. [^\n]+\n(.*?)(?=^## |\Z)", text)
    assert [number for number, _ in sections] == list("12345678")
    assert all("::test_" in body for _, body in sections)


def test_there_are_documents() -> None:
    found = {p.name for p in tracked() if p.suffix == ".md"}
    assert {"CHANGELOG.md", "CONTRIBUTING.md"} <= found


def test_every_decision_is_numbered_and_listed_once() -> None:
    numbers = sorted(int(p.name[:4]) for p in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
    listed = (ROOT / "docs" / "decisions.md").read_text()
    heads = [int(n) for n in re.findall(r"(?m)^(\d+)\. ", listed)]
    assert heads == list(range(1, len(heads) + 1))
    for page in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert re.search(rf"(?ms)^{int(page.name[:4])}\. .*?{page.name}", listed), page.name
