"""All settings of LLM-Sentinel in one tree, and the layers that fill it.

Defaults, then the TOML file that SENTINEL_CONFIG names (`sentinel.toml` if it names none), then the environment
(`SENTINEL_TIME__PANE_S=10`), then the command. `python -m flows.check` shows where each value came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from connectors.config import (
    AlertsConfig,
    DeadLettersConfig,
    LocalPath,
    ReliabilityConfig,
    SourceConfig,
    StoreConfig,
    TracesConfig,
    is_address,
)
from connectors.kafka.config import KafkaConfig
from flows.settings import layers
from flows.settings.schema import dotted, values_of
from operators.config import (
    DetectConfig,
    EnrichConfig,
    EpisodesConfig,
    GroupsConfig,
    PanesConfig,
    TimeConfig,
)
from operators.decode.config import DecodeConfig, LimitsConfig, PrivacyConfig
from operators.decode.resolve import conventions
from operators.detect import registry
from operators.errors import ConfigError
from operators.overrides import PRESETS
from operators.section import PlainText, Section

PREFIX: Final = "SENTINEL_"
CONFIG_VARIABLE: Final = "SENTINEL_CONFIG"
DEFAULT_FILE: Final = "sentinel.toml"

CONFIG_EXIT_CODE: Final = 78
"""The exit code of a start that is refused for its settings (EX_CONFIG of sysexits.h)."""


class MetricsConfig(Section):
    """The listener for Prometheus and for health probes; it has no authentication."""

    host: PlainText = Field("127.0.0.1", min_length=1, description="The address to listen on; loopback by default.")
    port: int = Field(0, ge=0, le=65_535, description="The port to listen on; 0 for no listener.")
    balance_file: LocalPath | None = Field(
        None, description="A file for the balance of all records, written as JSON when the flow ends."
    )
    services: int = Field(
        50, ge=1, le=1_000, description="Services that metrics tell apart; the others together are __other__."
    )


class ObjectivesConfig(Section):
    """Promises of a service; the metrics show them beside the measured values, and rules of Prometheus compare."""

    error_ratio: float = Field(0.01, gt=0, lt=1, description="The share of a service's calls that may fail.")
    cost_usd: float | None = Field(
        None,
        gt=0,
        description="Most US dollars that each service may cost in 30 days; without it nothing watches the cost.",
    )


class RecoveryConfig(Section):
    """The layout of the recovery store; it stays as it is for as long as the store is used."""

    shards: int = Field(
        4, ge=1, le=4_096, description="Parts that the series are cut into; 64 if there may be more than one process."
    )
    layout: Literal["shared", "own"] = Field(
        "shared",
        description="One folder for all processes, or one each (a pod's volume), with its share of the partitions.",
    )
    partitions: int | None = Field(
        None,
        ge=1,
        le=1_024,
        description='Files that the store is made of: the most pods with a volume each (layout = "own") that there '
        "will ever be, also where it begins in one pod. As many as processes if unset.",
    )
    token: SecretStr | None = Field(
        None,
        min_length=16,
        description="By it the processes of one cluster know each other before they settle which snapshots are "
        'removed (layout = "own"): the same for all, and needed unless they are on one host. Never shown.',
    )
    relearn: bool = Field(
        False,
        description="Whether detection learns anew if a change of detect.metrics, detect.horizons_s or detect.mix_by "
        "has made its learned state useless; otherwise such a start is refused.",
    )


class ClusterConfig(Section):
    """How `python -m flows.cluster` brings its processes back."""

    restarts: int = Field(10, ge=0, le=100_000, description="Most restarts of all processes within window_s.")
    window_s: float = Field(600, gt=0, le=604_800, description="The time in which restarts are counted.")
    backoff_first_s: float = Field(
        0.5,
        ge=0,
        le=3_600,
        description="The pause before a restart; it doubles with each one within window_s, less up to half by chance.",
    )
    backoff_most_s: float = Field(30, ge=0, le=3_600, description="The longest pause before a restart.")
    stop_s: float = Field(
        50, gt=0, le=3_600, description="Time for the last snapshots, before all processes are killed."
    )


class LogConfig(Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is shown; SIGUSR1 shows debug lines too, and a second one hides them."
    )
    format: Literal["text", "json"] = Field("text", description="Lines to read, or one JSON object a line.")


class Settings(Section):
    """Everything that can be set."""

    source: SourceConfig = SourceConfig()
    kafka: KafkaConfig = KafkaConfig()
    time: TimeConfig = TimeConfig()
    decode: LimitsConfig = LimitsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    enrich: EnrichConfig = EnrichConfig()
    panes: PanesConfig = PanesConfig()
    detect: DetectConfig = registry.completed(DetectConfig())
    episodes: EpisodesConfig = EpisodesConfig()
    groups: GroupsConfig = GroupsConfig()
    store: StoreConfig = StoreConfig()
    alerts: AlertsConfig = AlertsConfig()
    dead_letters: DeadLettersConfig = DeadLettersConfig()
    sinks: ReliabilityConfig = ReliabilityConfig()
    metrics: MetricsConfig = MetricsConfig()
    objectives: ObjectivesConfig = ObjectivesConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    cluster: ClusterConfig = ClusterConfig()
    log: LogConfig = LogConfig()
    traces: TracesConfig = TracesConfig()

    @property
    def uses_kafka(self) -> bool:
        """Whether anything is read from Kafka or written there."""
        return self.source.kind == "kafka" or self.alerts.kafka or self.dead_letters.kafka

    @property
    def decoding(self) -> DecodeConfig:
        """What a decoder is given."""
        return DecodeConfig(**dict(self.decode), privacy=self.privacy)

    @field_validator("detect")
    @classmethod
    def _by_the_registry(cls, v: DetectConfig) -> DetectConfig:
        if faults := registry.faults(v):
            raise layers.refused([(("detect", *key), what) for key, what in faults])
        return registry.completed(v)

    @model_validator(mode="after")
    def _go_together(self) -> Settings:
        time, expiry = self.time, self.panes.expiry_s
        key = ("panes", "expiry_s")
        for name, least, why in (
            ("pane_s", time.pane_s, "a series lives for one pane at least"),
            ("correction_s", time.correction_s, "a late event must still find its series"),
            ("max_ahead_s", time.max_ahead_s, "no partition may be ahead by more than a series is remembered"),
        ):
            if expiry < least:
                raise layers.at_odds(key, ("time", name), f"must be at least time.{name} = {least:g}: {why}")
        try:
            conventions(self.decoding)
        except ConfigError as error:
            named, _, what = str(error).partition(": ")
            raise layers.refused([(tuple(named.split(".")), what)]) from None
        unread = sorted(set(self.source.topics) - set(self.kafka.topics)) if self.source.kind == "kafka" else []
        if unread:
            raise layers.refused(
                [(("source", "topics", unread[0]), "is not in kafka.topics, so nothing is read from it")]
            )
        if 0 < time.correction_s < time.pane_s:
            raise layers.at_odds(
                ("time", "correction_s"),
                ("time", "pane_s"),
                f"must be 0, or at least time.pane_s = {time.pane_s}: corrections reach whole panes",
            )
        return self


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each key (`time.pane_s`) where its value came from."""

    settings: Settings
    provenance: Mapping[str, layers.Origin]

    def origin(self, key: str) -> layers.Origin:
        """The origin of this key's value; the default if nothing set it."""
        return self.provenance.get(key, layers.Origin("default"))


def load(environ: Mapping[str, str], cwd: Path, overrides: layers.Overrides | None = None) -> Loaded:
    """The settings of all layers, with `overrides` over them.

    Raises one `ConfigError` that names every problem: key, value, origin, and the allowed values.
    """
    problems = layers.Problems()
    stack = [
        layers.file_layer(path, Settings, problems) if (path := _file(environ, cwd)) else [],
        layers.environment_layer(environ, PREFIX, Settings, problems, beside=(CONFIG_VARIABLE,)),
        layers.command_layer(overrides or {}, Settings, problems),
    ]
    settings, provenance = layers.build(Settings, stack, problems)
    preset = settings.detect.preset
    behind = layers.Origin("preset", f"detect.preset = {preset}, set by {provenance['detect.preset']}")
    for key, _ in values_of(PRESETS[preset], ("detect",)):
        if (name := dotted(key)) in provenance and provenance[name].layer == "default":
            provenance[name] = behind
    return Loaded(settings, provenance)


def _file(environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = environ.get(CONFIG_VARIABLE)
    if not named:
        return path if (path := cwd / DEFAULT_FILE).exists() else None
    if is_address(named):
        raise ConfigError(f"{CONFIG_VARIABLE} must name a file, not an address: correct it or unset it")
    path = cwd / named
    if not path.is_file():
        raise ConfigError(f"{CONFIG_VARIABLE} names {path}, which is not a file: correct it or unset it")
    return path
