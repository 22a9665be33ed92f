"""The environments of the other processors, below .services/peers: Python packages, and for Flink a jar."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.throughput import ROOT

HERE = Path(__file__).parent
FOLDER = ROOT / ".services" / "peers"


def python_of(name: str) -> Path:
    """The interpreter of an environment with the packages that `name`.txt pins; makes it if it is missing."""
    requirements = HERE / f"{name}.txt"
    folder = FOLDER / name
    made = folder / "made-of.txt"
    python = folder / "bin" / "python"
    if not made.exists() or made.read_text() != requirements.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        _fetch([*install, str(requirements)], f"the packages of {requirements.relative_to(ROOT)}")
        made.write_text(requirements.read_text())
    return python


def version_of(name: str, package: str) -> str:
    """The version of a package that benchmarks/peers/`name`.txt pins."""
    for line in (HERE / f"{name}.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.partition("==")[2]
    raise ValueError(f"{package} is not in {name}.txt")


def flink_connector() -> Path:
    """The jar with Flink's Kafka connector; fetches it if it is missing."""
    jars = FOLDER / "jars"
    found = sorted(jars.glob("flink-sql-connector-kafka-*.jar"))
    if not found:
        if shutil.which("mvn") is None:
            raise SystemExit("Maven is needed to fetch Flink's Kafka connector: install it, or use --only")
        command = ["mvn", "--quiet", "--batch-mode", "--file", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
        _fetch(command, "Flink's Kafka connector")
        found = sorted(jars.glob("flink-sql-connector-kafka-*.jar"))
    return found[-1]


def _fetch(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise SystemExit(f"{what} could not be fetched (no network?):\n{tail}")
