"""The imports that packages may have, and the content that no file of the repository may have."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("flows", "connectors", "operators")
MAY_IMPORT = {
    "flows": {"flows", "connectors", "operators"},
    "connectors": {"connectors", "operators"},
    "operators": {"operators"},
}
THIRD_PARTY = {
    "msgspec", "numba", "numpy", "orjson", "prometheus_client", "pydantic", "pydantic_core", "river",
    "xxhash", "zstandard", "google.protobuf", "opentelemetry.proto",
}  # fmt: skip
PURE_STANDARD_LIBRARY = {
    "__future__", "abc", "ast", "bisect", "base64", "binascii", "collections", "contextlib", "copy", "dataclasses",
    "datetime", "decimal", "enum", "fnmatch", "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math",
    "operator", "pickle", "re", "statistics", "string", "struct", "types", "typing", "unicodedata", "urllib.parse",
    "warnings", "zlib", "zoneinfo",
}  # fmt: skip
IMPURE_CALLS = re.compile(r"\.(now|utcnow|today|fromtimestamp|random|default_rng|getenv|environ|urandom)$")
LINES = 450
BYTES = 1_000_000

sources = pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=str(p.relative_to(ROOT))) for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py"))],
)
pure_sources = pytest.mark.parametrize(
    "path", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in sorted((ROOT / "operators").rglob("*.py"))]
)


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


OPERATORS = (
    ("model", "metrics", "errors", "series", "patterns", "section", "stored", "text", "units"),
    ("kernels",),
    ("config", "overrides"),
    ("panes",),
    ("enrich",),
    ("decode",),
    ("detect.base", "detect.horizons", "detect.slots"),
    ("incidents",),
    ("detect.context",),
    ("detect.detectors",),
    ("detect.registry",),
    ("detect.engine",),
    ("observe",),
    ("steps",),
)
"""The layers of `operators` from the ground up: a file imports only from its own layer and from those before it."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path, path.read_text()
        except UnicodeDecodeError:
            continue


@sources
def test_imports_point_one_way(path: Path) -> None:
    ours = {name for name in imports(path) if name.split(".")[0] in (*PACKAGES, "tests", "benchmarks")}
    assert {name.split(".")[0] for name in ours} <= MAY_IMPORT[package_of(path)]


def modules(*packages: str) -> dict[str, Path]:
    """The modules of these packages by name."""
    paths = sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def imported_modules(path: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules among `known` that a file imports, anywhere in the file and for any purpose."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & known.keys() or {node.module}
    return {name for name in found if name in known and known[name] != path}


def layer(module: str) -> int:
    """The place of a module of `operators` in `OPERATORS`."""
    name = module.removeprefix("operators.")
    for i, names in enumerate(OPERATORS):
        if any(name == n or name.startswith(f"{n}.") for n in names):
            return i
    raise AssertionError(f"{module} is in no layer: name it in OPERATORS")


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import one another, directly or not."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for name in graph[ahead.pop()] - seen:
                seen.add(name)
                ahead.append(name)
        reached[start] = seen
    found = {tuple(sorted(n for n in reached[m] if m in reached[n])) for m in graph if m in reached[m]}
    return [list(circle) for circle in sorted(found)]


def test_operators_read_from_the_ground_up() -> None:
    known = {name: path for name, path in modules("operators").items() if path.name != "__init__.py"}
    wrong = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in sorted(imported_modules(path, known))
        if layer(other) > layer(name)
    ]
    assert wrong == []


def test_no_files_import_one_another_in_a_circle() -> None:
    known = modules(*PACKAGES)
    assert circles({name: imported_modules(path, known) for name, path in known.items()}) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


@pure_sources
def test_operators_are_pure(path: Path) -> None:
    bytewax = {"bytewax"} if path == ROOT / "operators" / "steps.py" else set()
    allowed = THIRD_PARTY | bytewax | PURE_STANDARD_LIBRARY | {"operators"}
    for name in imports(path):
        parts = name.split(".")
        within = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
        assert within & allowed, f"{name} is neither ours nor pure"


@pure_sources
def test_operators_read_no_clock_no_environment_and_no_chance(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            timed = (
                called.endswith("fromtimestamp") and len(node.args) + len(node.keywords) > 1
            )  # with a zone it is a pure function
            assert timed or not IMPURE_CALLS.search(called), f"line {node.lineno}: {called}"
            assert called not in {"open", "input", "print", "hash", "id", "exec", "eval"}, (
                f"line {node.lineno}: {called}"
            )


def test_importing_the_pure_part_loads_no_connector_and_no_bytewax() -> None:
    modules = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in sorted((ROOT / "operators").rglob("*.py"))
        if p.name != "steps.py"
    ]
    code = (
        f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
        "impure = ('bytewax', 'connectors', 'flows', 'confluent_kafka')\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in impure))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_flow_starts_nothing() -> None:
    code = (
        "import sys, threading, flows.main\nassert threading.active_count() == 1\n"
        "assert 'river' not in sys.modules, 'river takes seconds to import'\n"
        "assert 'opentelemetry.sdk' not in sys.modules, 'it is optional'\nprint(callable(flows.main.flow))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"


@sources
def test_files_stay_small_and_are_named_for_a_job(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES
    assert not re.search(r"util|helper|common|misc", path.stem)


def test_no_package_at_the_root_or_in_tests() -> None:
    """Bytewax would load `flows.main` twice if the root were a package."""
    assert not (ROOT / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_repository_speaks_of_no_machine_and_no_registry() -> None:
    # Each pattern is written so that it does not match itself.
    forbidden = re.compile(
        r"(?<![\w.])/(?:work|root|home/[a-z]+)/[a-z]|/tm[p]/[a-z]|py[p]i\.org|pythonhoste[d]|npmj[s]\.|mave[n]\.org|"
        r"mave[n]\.apache\.org/mave[n]2|crate[s]\.io|proxy\.golan[g]"
    )
    found = [f"{path.relative_to(ROOT)}: {m[0]}" for path, text in texts() for m in forbidden.finditer(text)]
    assert found == []


def test_no_large_files_and_no_data() -> None:
    assert [p.name for p in tracked() if p.stat().st_size > BYTES] == []


def test_unfinished_work_is_not_committed() -> None:
    marks = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X])\b|NotImplemented[E]rror")
    code = [(p, t) for p, t in texts() if p.suffix in {".py", ".pyi", ".sh", ".toml", ".yaml", ""}]
    assert code
    assert [f"{p.relative_to(ROOT)}: {m[0]}" for p, text in code for m in marks.finditer(text)] == []


def test_every_ignore_has_a_code_and_is_needed() -> None:
    """mypy rejects unneeded ones; a bare one could hide more than intended."""
    bare = re.compile(r"# type: ignor[e](?!\[)|# noq[a](?!:)")
    assert [str(p) for p, text in texts() if p.suffix == ".py" and bare.search(text)] == []
