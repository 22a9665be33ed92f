"""`python -m tests.audit LOCK`: checks the pinned packages for known vulnerabilities, if a database can be reached.

pip-audit alone would pass packages that it could not look up: its exit code is 0 for "not found" too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

DATABASES: Final = (("--vulnerability-service", "pypi"), ("--vulnerability-service", "osv"))


def audit(lock: Path, databases: Sequence[Sequence[str]] = DATABASES) -> tuple[int, str]:
    """The exit code (1 if a package is known to be vulnerable) and the message.

    Databases are asked in turn, until one knows the packages. A lock that is not pinned with hashes is an error.
    """
    packages: list[dict[str, Any]] = []
    for database in databases:
        packages = _ask(lock, database)
        if any("skip_reason" not in p for p in packages):
            break
    looked_up = [p for p in packages if "skip_reason" not in p]
    if not looked_up:
        return 0, f"{lock.name}: NOT audited, because no database of vulnerabilities can be reached from here"
    found = [
        f"{p['name']} {p['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or 'no version'}"
        for p in looked_up
        for v in p["vulns"]
    ]
    unknown = [p["name"] for p in packages if "skip_reason" in p]
    said = [f"{lock.name}: {len(looked_up)} packages audited, {len(found)} vulnerabilities known", *found]
    return int(bool(found)), "\n".join([*said, *([f"not audited: {', '.join(unknown)}"] if unknown else [])])


def _ask(lock: Path, database: Sequence[str]) -> list[dict[str, Any]]:
    """The answer of one database about each package; empty if it does not answer."""
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run(
        [*command, "--format", "json", "--requirement", str(lock), *database],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if not done.stdout:
        if "requests.exceptions" in done.stderr or "ServiceError" in done.stderr or "ConnectionError" in done.stderr:
            return []
        raise SystemExit(f"pip-audit failed on {lock.name}:\n{done.stderr}")
    packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    return packages


if __name__ == "__main__":
    code, text = audit(Path(sys.argv[1]))
    print(text)
    sys.exit(code)
