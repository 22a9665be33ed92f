"""Certificates for tests, made by openssl on demand: a CA, and the certificates that it signs."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.conftest import leave_out

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Certificate:
    """Files in PEM: the certificate and its key, which has no password."""

    cert: Path
    key: Path

    def store(self, path: Path) -> Path:
        """Both in one file, as Kafka needs them for a key store of type PEM."""
        path.write_text(self.key.read_text() + self.cert.read_text())
        return path


class Authority:
    """A new CA."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.cert, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl("req", "-x509", *CURVE, "-keyout", self._key, "-out", self.cert, "-subj", f"/CN={name}", "-days", "2")

    def issued(self, name: str, host: str = "IP:127.0.0.1", expires_in_s: float = 86_400) -> Certificate:
        """A certificate for this host, valid from yesterday until this many seconds from now (may be negative)."""
        found = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={host}\n")
        _openssl("req", *CURVE, "-keyout", found.key, "-out", request, "-subj", f"/CN={name}")
        begin, end = (datetime.now(UTC) + timedelta(seconds=s) for s in (-86_400, expires_in_s))
        (self._folder / "index").write_text("")
        settings = self._folder / "ca.cnf"
        settings.write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={self._folder / 'index'}\nnew_certs_dir={self._folder}\n"
            "default_md=sha256\npolicy=any\nrand_serial=yes\nunique_subject=no\n[any]\ncommonName=supplied\n"
        )
        _openssl(
            "ca", "-batch", "-notext", "-config", settings, "-cert", self.cert, "-keyfile", self._key,
            "-in", request, "-out", found.cert, "-extfile", extensions,
            "-startdate", f"{begin:%Y%m%d%H%M%SZ}", "-enddate", f"{end:%Y%m%d%H%M%SZ}",
        )  # fmt: skip
        return found


def _openssl(*arguments: str | Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        leave_out("no certificates: openssl is not installed")
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, timeout=60)
