"""What can be set about connectors: one model a system, with defaults, units in the names and bounds on each.

`flows.settings` fills these from its layers; nothing here reads a file or the environment.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field, SecretStr, model_validator

from operators.section import Section


class ReliabilityConfig(Section):
    """How a sink cuts its work into chunks, and how long it tries again when its neighbour fails."""

    chunk_rows: int = Field(2_000, ge=1, le=100_000, description="Most items of one write.")
    backoff_first_s: float = Field(
        0.1, gt=0, le=60, description="Wait before the second try; doubled with each one after."
    )
    backoff_most_s: float = Field(10, gt=0, le=600, description="Longest wait between two tries.")
    budget_s: float = Field(300, ge=0, le=86_400, description="The process ends when a write has failed for this long.")
    rejected_file: Path | None = Field(None, description="Items that a store refuses are appended here as JSON lines.")

    @model_validator(mode="after")
    def _ordered(self) -> ReliabilityConfig:
        if self.backoff_most_s < self.backoff_first_s:
            raise ValueError("backoff_most_s must not be below backoff_first_s")
        return self


class FilesConfig(Section):
    """Recorded traffic: JSON lines, plain or gzip."""

    paths: tuple[Path, ...] = Field(min_length=1, description="The files to read; each one is a partition.")


class SqliteConfig(Section):
    """The embedded store: all tables in one SQLite file."""

    path: Path = Field(Path("runs/sentinel.db"), description="The database file; its folder must exist.")
    busy_timeout_s: float = Field(5, ge=0, le=60, description="How long a write waits for another program's lock.")


class JsonlConfig(Section):
    """A file of JSON lines, one an alert or dead letter."""

    path: Path = Field(Path("runs/alerts.jsonl"), description="The file that is appended to; its folder must exist.")


class TerminalConfig(Section):
    """Alerts as readable lines on the terminal."""

    width: int | None = Field(None, ge=20, le=1_000, description="Columns of a line; the terminal's own where unset.")


class GreptimeConfig(Section):
    """GreptimeDB over gRPC."""

    model_config = ConfigDict(hide_input_in_errors=True)

    endpoint: str = Field("127.0.0.1:4001", pattern=r"^[^/\s]+:\d{1,5}$", description="host:port of its gRPC server.")
    database: str = Field("public", min_length=1, description="The database that the tables are in.")
    username: str | None = Field(None, min_length=1, description="Needs a password too.")
    password: SecretStr | None = Field(None, description="Never shown.")
    timeout_s: float = Field(10, ge=0.1, le=300, description="Longest time for one write.")
    connect_timeout_s: float = Field(5, ge=0.1, le=60, description="Longest time for making a connection.")
    tls_ca: Path | None = Field(None, description="Certificate authority of the server (PEM).")
    tls_cert: Path | None = Field(None, description="Certificate of this client (PEM).")
    tls_key: Path | None = Field(None, description="Key of this client (PEM).")
    partitions: int = Field(4, ge=1, le=64, description="Writers side by side; fixed when the recovery store is made.")

    @model_validator(mode="after")
    def _complete(self) -> GreptimeConfig:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together: set both or neither")
        if len({self.tls_ca is None, self.tls_cert is None, self.tls_key is None}) > 1:
            raise ValueError(
                "tls_ca, tls_cert and tls_key go together, as the client only does mutual TLS: set all or none"
            )
        return self


class TracesConfig(Section):
    """OpenTelemetry traces of the flow itself, by OTLP over HTTP; needs the extra `otel`."""

    model_config = ConfigDict(hide_input_in_errors=True)

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s@]+$",
        description="Where a collector takes traces, as http://localhost:4318/v1/traces; without it there are none.",
    )
    token: SecretStr | None = Field(None, description="Sent as a bearer token. Never shown.")
    batches: float = Field(0.01, ge=0, le=1, description="The share of polls that become a span; every write does.")
    timeout_s: float = Field(5, ge=0.1, le=60, description="Longest time for sending spans, at the end of the run too.")
