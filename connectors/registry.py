"""Every source and sink, by its name in the settings.

The flow, `check --connect`, backtests and the laws in `tests/contracts` take them from here and name none themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Never, Protocol, TypeVar

from connectors.base import Guarantee, Message, ReaderFactory, Row, WriterFactory
from connectors.config import AlertsConfig, DeadLettersConfig, JsonlConfig, SourceConfig, StoreConfig, TerminalConfig
from connectors.files.source import FilesFactory
from connectors.greptime.writer import GreptimeFactory
from connectors.jsonl import JsonlFactory
from connectors.kafka.config import KafkaConfig
from connectors.kafka.once import KafkaOnce
from connectors.kafka.source import KafkaSource
from connectors.simulator import Simulator
from connectors.sqlite import SqliteFactory
from operators.decode.config import LimitsConfig

X = TypeVar("X")
X_contra = TypeVar("X_contra", contravariant=True)


class ConnectorSettings(Protocol):
    """The part of the settings that connectors are made from."""

    @property
    def source(self) -> SourceConfig: ...
    @property
    def decode(self) -> LimitsConfig: ...
    @property
    def kafka(self) -> KafkaConfig: ...
    @property
    def store(self) -> StoreConfig: ...
    @property
    def alerts(self) -> AlertsConfig: ...
    @property
    def dead_letters(self) -> DeadLettersConfig: ...


First = Mapping[str, int]
"""The number of partitions that each topic had at the first start of the recovery store, as far as known."""


@dataclass(frozen=True, slots=True)
class Sink(Generic[X_contra]):
    """One sink: its guarantee, the setting that asks for it, and the function that makes it from the settings.

    `make` returns None if the settings do not ask for the sink, and connects to nothing. `pages`: whether people are
    paged by its items. `file` is the setting with the path of its file, for a sink that writes one. `step` gives the id
    of its output step if its partitions depend on settings: Bytewax cannot resume with other partitions.
    """

    guarantee: Guarantee
    setting: str
    make: Callable[[ConnectorSettings, First], WriterFactory[X_contra] | None]
    pages: bool = False
    file: str = ""
    step: Callable[[ConnectorSettings], str] | None = None


def _sqlite(s: ConnectorSettings, _: First) -> SqliteFactory | None:
    return SqliteFactory(s.store.sqlite) if s.store.kind == "sqlite" else None


def _greptime(s: ConnectorSettings, _: First) -> GreptimeFactory | None:
    return GreptimeFactory(s.store.greptime) if s.store.kind == "greptime" else None


def _alert_terminal(s: ConnectorSettings, _: First) -> WriterFactory[Message] | None:
    if not s.alerts.terminal:
        return None
    from connectors.terminal import TerminalFactory  # imports a slow package for drawing, which pods do not need

    return TerminalFactory(TerminalConfig(width=s.alerts.width))


def _alert_jsonl(s: ConnectorSettings, _: First) -> JsonlFactory | None:
    return None if s.alerts.jsonl is None else JsonlFactory(JsonlConfig(path=s.alerts.jsonl))


def _alert_kafka(s: ConnectorSettings, first: First) -> KafkaOnce | None:
    topic = s.kafka.alert_topic
    return KafkaOnce(s.kafka, topic, "kafka_alerts", first.get(topic)) if s.alerts.kafka else None


def _letter_jsonl(s: ConnectorSettings, _: First) -> JsonlFactory | None:
    path = s.dead_letters.jsonl
    return None if path is None else JsonlFactory(JsonlConfig(path=path), "jsonl_dead_letters", "id")


def _letter_kafka(s: ConnectorSettings, first: First) -> KafkaOnce | None:
    topic = s.kafka.dead_letter_topic
    return KafkaOnce(s.kafka, topic, "kafka_dead_letters", first.get(topic)) if s.dead_letters.kafka else None


STORES: Final[dict[str, Sink[Row]]] = {
    "sqlite": Sink("exactly_once", "store.kind", _sqlite, file="store.sqlite.path"),
    "greptime": Sink(
        "exactly_once", "store.kind", _greptime, step=lambda s: f"store_greptime_{s.store.greptime.partitions}"
    ),
}
"""The stores for rows of panes, expected values and alerts. Settings ask for at most one."""

ALERTS: Final[dict[str, Sink[Message]]] = {
    "terminal": Sink("best_effort", "alerts.terminal", _alert_terminal),
    "jsonl": Sink("exactly_once", "alerts.jsonl", _alert_jsonl, file="alerts.jsonl"),
    "kafka": Sink(
        "exactly_once", "alerts.kafka", _alert_kafka, pages=True, step=lambda s: f"alerts_kafka_{s.kafka.alert_topic}"
    ),
}
"""The sinks of alerts."""

DEAD_LETTERS: Final[dict[str, Sink[Message]]] = {
    "jsonl": Sink("exactly_once", "dead_letters.jsonl", _letter_jsonl, file="dead_letters.jsonl"),
    "kafka": Sink(
        "exactly_once",
        "dead_letters.kafka",
        _letter_kafka,
        step=lambda s: f"dead_letters_kafka_{s.kafka.dead_letter_topic}",
    ),
}
"""The sinks of dead letters."""

SINKS: Final[tuple[Sink[Never], ...]] = (*STORES.values(), *ALERTS.values(), *DEAD_LETTERS.values())
"""All sinks."""

SOURCES: Final[dict[str, Callable[[ConnectorSettings], ReaderFactory]]] = {
    "files": lambda s: FilesFactory(_given(s.source.files), s.decode.max_record_bytes),
    "simulator": lambda s: Simulator(s.source.simulator),
    "kafka": lambda s: KafkaSource(s.kafka),
}
"""The sources of telemetry, by `source.kind`."""


def asked_for(
    sinks: Mapping[str, Sink[X]], settings: ConnectorSettings, first: First | None = None
) -> dict[str, WriterFactory[X]]:
    """The sinks that the settings ask for, by name; none is connected yet."""
    made = {name: sink.make(settings, first or {}) for name, sink in sinks.items()}
    return {name: factory for name, factory in made.items() if factory is not None}


def heartbeats(settings: ConnectorSettings) -> KafkaOnce | None:
    """The topic of heartbeats; None if the settings ask for none."""
    if not settings.alerts.kafka or not settings.kafka.heartbeat_s:
        return None
    return KafkaOnce(settings.kafka, settings.kafka.heartbeat_topic, "heartbeat")


def _given(files: X | None) -> X:
    assert files is not None  # `SourceConfig` requires paths for this source
    return files
