"""The Makefile: its targets, its message without a suitable Python, and the locks that it installs from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
MAKE = shutil.which("make") or "make"
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")


def make(folder: Path, *arguments: str, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    environ = {"PATH": path, "HOME": str(folder)}
    return subprocess.run(
        [MAKE, *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with the files that make installs from, and `bin` with the shell's tools but no Python."""
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "rm", "touch", "awk", "mkdir"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    return tmp_path


def pretend_python(folder: Path, name: str, version: str) -> None:
    """Make a `python` that answers the version check of the Makefile as this version would."""
    ok = "0" if version in ("3.11", "3.12") else "1"
    script = folder / name
    lines = ["#!/bin/sh", f'[ "$1" = -c ] && exit {ok}', f'echo "{version} $*" >> "{folder}/calls"']
    script.write_text("\n".join([*lines, '[ "$2" = venv ] && mkdir -p "$3"', "exit 0", ""]))
    script.chmod(0o755)


def test_help_names_every_target(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = make(tmp_path, "help")
    assert done.returncode == 0
    listed = re.findall(r"(?m)^make (\S+) ", done.stdout)
    assert listed == re.findall(r"(?m)^\.PHONY: (\S+)$", MAKEFILE)
    assert make(tmp_path).stdout == done.stdout


@pytest.mark.parametrize("versions", [[], ["3.13"], ["3.10", "3.14"]])
def test_without_a_suitable_python_one_sentence_says_what_to_do(bare: Path, versions: list[str]) -> None:
    for version in versions:
        pretend_python(bare / "bin", "python3", version)
        pretend_python(bare / "bin", f"python{version}", version)
    done = make(bare, "run", path=str(bare / "bin"))
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(said) == 1
    assert said[0].startswith("Python 3.11 or 3.12 with its venv module is needed")
    assert not (bare / ".venv").exists()


@pytest.mark.parametrize("where", ["python3.12", "python3", "pyenv", "PYTHON"])
def test_a_suitable_python_is_found(bare: Path, where: str) -> None:
    pretend_python(bare / "bin", "python3.11", "3.13")  # first in line, and not suitable
    folder, name, arguments = bare / "bin", where, []
    if where == "pyenv":
        folder, name = bare / ".pyenv" / "versions" / "3.12.4" / "bin", "python"
        folder.mkdir(parents=True)
    if where == "PYTHON":
        folder, name = bare / "elsewhere", "snake"
        folder.mkdir()
        arguments = [f"PYTHON={folder / name}"]
    pretend_python(folder, name, "3.12")
    done = make(bare, ".venv/.python", *arguments, path=str(bare / "bin"))
    assert done.returncode == 0, done.stderr
    assert (folder / "calls").read_text() == "3.12 -m venv .venv\n"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "-m flows.run"),
        (["EVENTS=a.jsonl b.jsonl"], "-m flows.run --events a.jsonl b.jsonl"),
        (["RESUME=1"], "-m flows.run --resume"),
        (["RESUME=0"], "-m flows.run"),
    ],
)
def test_run_passes_its_arguments_on(bare: Path, arguments: list[str], command: str) -> None:
    (bare / ".venv").mkdir()
    for stamp in (".python", ".runtime"):
        (bare / ".venv" / stamp).touch()
    done = make(bare, "-n", "run", *arguments)
    assert done.stdout.split() == [".venv/bin/python", *command.split()]


@pytest.mark.parametrize(("target", "lock"), [("run", LOCKS[0]), ("check", LOCKS[1])])
def test_the_project_is_installed_without_any_index_beside_the_pinned_packages(
    bare: Path, target: str, lock: str
) -> None:
    (bare / ".venv").mkdir()
    (bare / ".venv" / ".python").touch()
    done = make(bare, "-n", target)
    installs = [line.split(" --disable-pip-version-check ")[1] for line in done.stdout.splitlines() if " pip " in line]
    assert installs[:2] == [
        f"--require-hashes --only-binary :all: -r {lock} -r requirements-build.lock",
        "--no-index --no-deps --no-build-isolation --editable .",
    ]


def test_demo_passes_its_arguments_on(bare: Path) -> None:
    (bare / ".venv").mkdir()
    for stamp in (".python", ".runtime"):
        (bare / ".venv" / stamp).touch()
    done = make(bare, "-n", "demo", "ARGS=--speed 600")
    assert done.stdout.split() == [".venv/bin/python", "-m", "flows.demo", "--speed", "600"]


@pytest.mark.parametrize("failing", ["", "whole", "pure", "parts", "uncompiled", "report"])
def test_every_part_of_the_tests_runs_and_must_pass(bare: Path, failing: str) -> None:
    (bare / ".venv" / "bin").mkdir(parents=True)
    for stamp in (".python", ".runtime", ".dev"):
        (bare / ".venv" / stamp).touch()
    python = bare / ".venv" / "bin" / "python"
    python.write_text(f"""#!/bin/sh
case "${{NUMBA_DISABLE_JIT:-0}} $*" in
    "1 -m coverage run -m pytest "*" tests/operators") what=uncompiled;;
    "0 -m pytest tests/benchmarks "*) what=whole;;
    "0 -m coverage run -m pytest "*" tests/operators tests/contracts") what=pure;;
    "0 -m coverage run -m pytest "*" --ignore=tests/operators "*) what=parts;;
    *) what=$3;;
esac
[ "$what" != pure ] || echo "  2 x no broker" >>"$LLMS_TEST_SUMMARY"
echo "ran $what"
[ "$what" != "{failing}" ]
""")
    python.chmod(0o755)
    done = make(bare, "test")
    assert (done.returncode == 0) == (not failing), done.stderr
    ran = [line for line in done.stdout.splitlines() if line.startswith("ran")]
    assert sorted(ran[:4]) == ["ran parts", "ran pure", "ran uncompiled", "ran whole"]
    assert ran[4:] == (["ran combine", "ran report"] if failing in ("", "report") else [])
    assert ("left out:\n  2 x no broker\n" in done.stdout) == (not failing)


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_everything_with_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pins = re.split(r"(?m)^(?=\S)", text)[1:] if not text[0].isspace() else []
    assert pins
    for pin in pins:
        assert re.match(r"[a-z0-9.-]+==\S+( ; .+?)? \\\n", pin), pin.splitlines()[0]
        assert "--hash=sha256:" in pin
    assert "://" not in text


def test_locks_hold_what_the_project_asks_for() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = settings["project"]
    asked = {
        "requirements.lock": project["dependencies"],
        "requirements-dev.lock": [*project["dependencies"], *project["optional-dependencies"]["dev"]],
        "requirements-build.lock": [*settings["build-system"]["requires"], *settings["dependency-groups"]["build"]],
    }
    pinned = {lock: dict(re.findall(r"(?m)^([a-z0-9.-]+)==(\S+)", (ROOT / lock).read_text())) for lock in LOCKS}
    for lock, names in asked.items():
        assert [n for n in names if re.split(r"[=<>~!]", n)[0] not in pinned[lock]] == []
    runtime, everything, build = (pinned[lock] for lock in LOCKS)
    assert not build.keys() & runtime.keys()  # the image needs no tool that installs the project
    assert runtime.items() <= everything.items()
    assert runtime["bytewax"] == "0.21.1"


def test_ci_runs_the_commands_of_the_readme_on_a_clean_clone(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci")
    told, tell = tmp_path / "told", 'echo "$@ $${LLMS_TEST_STRICT:-0}" $$(ls -A | grep -v "^.git$$") >>$(TOLD)'
    (checkout / "Makefile").write_text(f"run test check:\n\t@{tell}; mkdir -p $@.made\nservices:\n\t@mkdir .services\n")
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    for command in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    (checkout / "build").mkdir()
    (checkout / "build" / "sbom.cdx.json").touch()
    environ = {"PATH": os.environ["PATH"], "TOLD": str(told), "TMPDIR": str(tmp_path)}
    subprocess.run([checkout / ".ci" / "run"], env=environ, check=True, timeout=60)
    assert told.read_text().splitlines() == [
        "run 0 .ci Makefile",
        "test 1 .ci .services Makefile run.made",
        "check 0 .ci .services Makefile run.made test.made",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkout", "told"]
