"""The audit of dependencies with a small database on loopback, and without one; the bill of materials."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.audit import audit
from tests.conftest import ROOT

VULNERABLE = {
    "vulns": [
        {
            "id": "PYSEC-1",
            "details": "It breaks.",
            "affected": [
                {"package": {"name": "frail", "ecosystem": "PyPI"}, "ranges": [
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}]}
            ],
        }
    ]
}  # fmt: skip


class _Database(BaseHTTPRequestHandler):
    """A server that answers like OSV: one package is vulnerable."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(VULNERABLE if asked["package"]["name"] == "frail" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the name is the base class's


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Database)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def lock(folder: Path, *names: str) -> Path:
    path = folder / "some.lock"
    path.write_text("".join(f"{name}==1.0 \\\n    --hash=sha256:{'0' * 64}\n" for name in names))
    return path


def at(url: str) -> list[tuple[str, ...]]:
    return [("--vulnerability-service", "osv", "--osv-url", url)]


def test_a_vulnerable_package_fails_the_check(tmp_path: Path, database: str) -> None:
    assert audit(lock(tmp_path, "calm", "frail"), at(database)) == (
        1, "some.lock: 2 packages audited, 1 vulnerabilities known\nfrail 1.0: PYSEC-1, fixed in 1.1"
    )  # fmt: skip


def test_a_database_that_cannot_be_reached_is_said_and_the_next_one_is_asked(tmp_path: Path, database: str) -> None:
    away = at("http://127.0.0.1:9")
    code, said = audit(lock(tmp_path, "calm"), away)
    assert (code, "NOT audited" in said) == (0, True)
    assert audit(lock(tmp_path, "calm"), away + at(database)) == (
        0, "some.lock: 1 packages audited, 0 vulnerabilities known"
    )  # fmt: skip


def test_a_lock_without_hashes_is_no_lock(tmp_path: Path, database: str) -> None:
    path = tmp_path / "loose.txt"
    path.write_text("calm>=1\n")
    with pytest.raises(SystemExit, match=r"pip-audit failed on loose\.txt"):
        audit(path, at(database))


def test_the_bill_of_materials_holds_the_lock_and_nothing_else(tmp_path: Path) -> None:
    recipe = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"\$\(PY\) (-W ignore -m cyclonedx_py .+)", recipe)
    assert "--validate" in command
    out = tmp_path / "sbom.json"
    subprocess.run(
        [sys.executable, *command.replace("build/sbom.cdx.json", str(out)).split()],
        cwd=ROOT, check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    bill = json.loads(out.read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "llm-sentinel")
    pinned = set(re.findall(r"(?m)^([a-z0-9.-]+)==(\S+)", (ROOT / "requirements.lock").read_text()))
    assert {(c["name"], c["version"]) for c in bill["components"]} == pinned
