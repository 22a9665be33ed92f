"""The settings of connectors: one model for each system, with defaults, units in the names, and bounds.

`flows.settings` fills these from its layers; nothing here reads a file or the environment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from connectors.simulation.config import SimulatorConfig
from operators.decode.mapping import MappingConfig
from operators.decode.registry import MAPPED, NAMES
from operators.section import MASK, PlainText, Section, without

_HOST: Final = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_HOST_PORT: Final = re.compile(rf"{_HOST}:[0-9]{{1,5}}")
_URL: Final = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:[/?][^\s@]*)?")
_BROKER: Final = re.compile(rf"(?:(?:PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?{_HOST_PORT.pattern}")


def _host_port(text: str) -> str:
    if not _HOST_PORT.fullmatch(text):
        raise ValueError("must be host:port, without a user and a password")
    return text


def brokers(text: str) -> str:
    """The text, if it is a list of brokers without credentials; else raises `ValueError`."""
    if not all(_BROKER.fullmatch(part.strip()) for part in text.split(",")):
        raise ValueError(
            "must be host:port of one or more brokers, separated by commas; a user and a password belong into "
            "kafka.options"
        )
    return text


HostPort = Annotated[PlainText, AfterValidator(_host_port)]
"""An address that can hold no credentials."""
Brokers = Annotated[PlainText, AfterValidator(brokers)]


_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_address(text: str) -> bool:
    """Whether the text is an address such as postgresql://user:password@host rather than the path of a file."""
    return _ADDRESS.match(text) is not None


def _local(path: Path) -> Path:
    if is_address(str(path)):
        raise ValueError("must be the path of a file, not an address")
    return path


LocalPath = Annotated[Path, AfterValidator(_local)]
"""A path, which may be shown; an address is refused because it could hold a secret."""


class Endpoint(SecretStr):
    """An address whose path and query may hold a secret; only the host is shown."""

    def _display(self) -> str:
        parts = urlsplit(self.get_secret_value())
        return f"{parts.scheme}://{parts.netloc}/{MASK}"

    def secrets(self) -> list[str]:
        """The parts that must not appear in a log: the query, its values, and a path that is not the usual one."""
        parts = urlsplit(self.get_secret_value())
        path = [] if parts.path in ("", "/", "/v1/traces") else [parts.path]
        return [*path, parts.query, *(part for pair in parse_qsl(parts.query) for part in pair[1:])]


def _endpoint(address: Endpoint) -> Endpoint:
    if not _URL.fullmatch(address.get_secret_value()):
        raise ValueError("must be an address such as http://localhost:4318/v1/traces, without a user and a password")
    return address


class ReliabilityConfig(Section):
    """How a sink cuts its work into chunks, and how long it tries again when its neighbour fails."""

    chunk_rows: int = Field(2_000, ge=1, le=100_000, description="Most items of one write.")
    backoff_first_s: float = Field(
        0.1,
        gt=0,
        le=60,
        description="Wait before the second try; doubled after each try, less up to half at random.",
    )
    backoff_most_s: float = Field(10, gt=0, le=600, description="Longest wait between two tries.")
    budget_s: float = Field(300, ge=0, le=86_400, description="The process ends when a write has failed for this long.")
    rejected_file: LocalPath | None = Field(
        None, description="Items that a store refuses are appended here as JSON lines."
    )

    @model_validator(mode="after")
    def _ordered(self) -> ReliabilityConfig:
        if self.backoff_most_s < self.backoff_first_s:
            raise ValueError("backoff_most_s must not be below backoff_first_s")
        return self


class FilesConfig(Section):
    """Recorded traffic: JSON lines or CSV, plain, gzip or zstd, or Parquet."""

    paths: tuple[LocalPath, ...] = Field(
        min_length=1, description="The files to read, and folders of them; each file is a partition."
    )


class SqliteConfig(Section):
    """The embedded store: all tables in one SQLite file."""

    path: LocalPath = Field(Path("runs/sentinel.db"), description="The database file; its folder must exist.")
    busy_timeout_s: float = Field(5, ge=0, le=60, description="How long a write waits for another program's lock.")


class JsonlConfig(Section):
    """A file of JSON lines, one an alert or dead letter."""

    path: LocalPath = Field(
        Path("runs/alerts.jsonl"), description="The file that is appended to; its folder must exist."
    )


class TerminalConfig(Section):
    """Alerts as readable lines on the terminal."""

    width: int | None = Field(None, ge=20, le=1_000, description="Columns of a line; the terminal's own where unset.")


class GreptimeConfig(Section):
    """GreptimeDB over gRPC."""

    endpoint: HostPort = Field("127.0.0.1:4001", description="host:port of its gRPC server.")
    database: PlainText = Field("public", min_length=1, description="The database that the tables are in.")
    username: str | None = Field(None, min_length=1, description="Needs a password too. Never shown.")
    password: SecretStr | None = Field(None, description="Never shown.")
    timeout_s: float = Field(10, ge=0.1, le=300, description="Longest time for one write.")
    connect_timeout_s: float = Field(5, ge=0.1, le=60, description="Longest time for making a connection.")
    tls_ca: LocalPath | None = Field(None, description="Certificate authority of the server (PEM).")
    tls_cert: LocalPath | None = Field(None, description="Certificate of this client (PEM).")
    tls_key: LocalPath | None = Field(None, description="Key of this client (PEM).")
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

    def masked(self, text: str) -> str:
        """`text` without user and password: for messages that come from the client or the server."""
        password = self.password.get_secret_value() if self.password else ""
        return without(text, [self.username or "", password])


class TopicConfig(Section):
    """What is read otherwise from one topic than from the others."""

    format: PlainText | None = Field(None, description="The format of its records.")
    mapping: MappingConfig | None = Field(None, description="How its own JSON is read.")

    @field_validator("format")
    @classmethod
    def _known(cls, v: str | None) -> str | None:
        return v if v is None else _format(v)


def _format(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"must be one of {', '.join(NAMES)}")
    return name


class SourceConfig(Section):
    """The source of telemetry."""

    kind: Literal["simulator", "files", "kafka"] = Field(
        "simulator", description="The simulator, recorded traffic in files, or the topics of [kafka]."
    )
    format: PlainText = Field(
        "auto", description="The format of the records (docs/formats.md); auto finds out that of each record."
    )
    mapping: MappingConfig | None = Field(
        None,
        description="How own JSON is read: with the format mapped all records, with auto those of no other format.",
    )
    topics: dict[PlainText, TopicConfig] = Field({}, description="What is read otherwise from single topics, by name.")
    batch_size: int = Field(20_000, ge=1, le=1_000_000, description="Most records of one poll of a partition.")
    simulator: SimulatorConfig = SimulatorConfig()
    files: FilesConfig | None = None

    @field_validator("format")
    @classmethod
    def _known(cls, v: str) -> str:
        return _format(v)

    @model_validator(mode="after")
    def _complete(self) -> SourceConfig:
        if self.kind == "files" and self.files is None:
            raise ValueError('kind = "files" needs source.files.paths')
        for name, of in {"": TopicConfig(), **self.topics}.items():
            if self.read_as(name)[0] == MAPPED and (of.mapping or self.mapping) is None:
                raise ValueError(f'the format "{MAPPED}" needs source.mapping')
        return self

    def read_as(self, topic: str) -> tuple[str, MappingConfig | None]:
        """The format and the mapping of the records of a topic."""
        of = self.topics.get(topic, TopicConfig())
        return of.format or self.format, of.mapping or self.mapping


class StoreConfig(Section):
    """The store of pane rows, of expected values and of alerts, for queries."""

    kind: Literal["sqlite", "greptime", "none"] = Field("sqlite", description="The store that the flow writes.")
    expectations: bool = Field(
        True,
        description="Whether it gets the expected values of each series, once a minute; dashboards draw them.",
    )
    sqlite: SqliteConfig = SqliteConfig()
    greptime: GreptimeConfig = GreptimeConfig()


def _none_where_empty(path: object) -> object:
    return None if path == "" else path


class AlertsConfig(Section):
    """Where alerts go. The store always has them too."""

    terminal: bool = Field(True, description="As readable lines on standard output.")
    width: int | None = Field(None, ge=20, le=1_000, description="Columns of such a line; the terminal's own if unset.")
    jsonl: LocalPath | None = Field(
        Path("runs/alerts.jsonl"), description='A file of JSON lines, its folder must exist; "" for none.'
    )
    kafka: bool = Field(False, description="The topic kafka.alert_topic, exactly once.")
    max_age_s: float = Field(
        3_600, ge=0, le=31_536_000, description="An alert sent later than this after its time is marked as replayed."
    )

    _off = field_validator("jsonl", mode="before")(_none_where_empty)


class DeadLettersConfig(Section):
    """Where unusable records go. They are counted in any case."""

    jsonl: LocalPath | None = Field(
        Path("runs/dead_letters.jsonl"), description='A file of JSON lines, its folder must exist; "" for none.'
    )
    kafka: bool = Field(False, description="The topic kafka.dead_letter_topic, exactly once.")

    _off = field_validator("jsonl", mode="before")(_none_where_empty)


class TracesConfig(Section):
    """OpenTelemetry traces of the flow itself, by OTLP over HTTP; needs the extra `otel`."""

    endpoint: Annotated[Endpoint, AfterValidator(_endpoint)] | None = Field(
        None,
        description="Where a collector takes traces, as http://localhost:4318/v1/traces; without it there are none. "
        "Only its host is shown.",
    )
    token: SecretStr | None = Field(None, description="Sent as a bearer token. Never shown.")
    batches: float = Field(0.01, ge=0, le=1, description="The share of polls that become a span; every write does.")
    timeout_s: float = Field(5, ge=0.1, le=60, description="Longest time for sending spans, at the end of the run too.")
