"""The states that have a version, and a small run that fills every branch of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import numpy as np
import orjson

from connectors import once, reliable
from connectors.config import ReliabilityConfig
from connectors.reliable import ReliableSink
from connectors.source import SourceSettings, TelemetryPartition, TelemetrySource
from flows import pipeline as steps
from flows.pipeline import Shape, alert_record, detection, letter_record
from flows.recovery import store as recovery_store
from operators import stored
from operators.config import (
    DetectConfig,
    EnrichConfig,
    EpisodesConfig,
    GroupsConfig,
    PanesConfig,
    TimeConfig,
)
from operators.decode.config import DecodeConfig
from operators.decode.intake import Balance, Batch, Intake
from operators.decode.registry import DECODERS
from operators.detect import registry
from operators.detect.engine import monitor
from operators.enrich.enricher import Enricher
from operators.incidents.episodes import Trail, Witness
from operators.incidents.findings import Finding, Judged
from operators.incidents.groups import Groups
from operators.metrics import METRICS
from operators.model import LABELS, SECOND, Alert
from operators.panes import sketch
from operators.panes import table as pane_table
from operators.panes.admission import Admission
from operators.panes.rollup import Rollup
from operators.panes.shard import Shard, Slice
from operators.panes.table import PaneTable
from operators.panes.watermark import ShardClock
from operators.steps import Detect, PartialPanes, dead_letters
from operators.stored import restored
from tests.harness import BEGAN, MemoryLog, MemoryStore, MemoryTopic
from tests.otlp import Plain, json_text


@dataclass(frozen=True)
class Versioned:
    """A state: its version, where the code defines that, its parts with a layout of their own, and its encoding."""

    version: int | str
    where: str
    apart: dict[str, str] = field(default_factory=dict)
    encoded: Callable[[], str] = str
    """Facts that the layout does not show: the bytes of a fixed example, and the names of fields stored by position."""


def _example() -> PaneTable:
    """A table of two rows in which no array is empty."""
    row, run, wide = np.arange(2), np.arange(2 * len(METRICS)), np.arange(2 * len(METRICS)).reshape(2, -1)
    of_type = {f.name: f.type for f in fields(PaneTable)}
    arrays = {
        name: 7 * number + (wide if name in _WIDE else run if name.startswith("sketch_") else row)
        for number, (name, kind) in enumerate(of_type.items())
        if kind != "list[str]"
    }
    arrays |= {"sketch_start": np.arange(2 * len(METRICS) + 1), "evidence_error": np.array([True, False])}
    texts = {name: [f"{name} 0", f"{name} 1"] for name, kind in of_type.items() if kind == "list[str]"}
    return PaneTable(**arrays, **texts)  # type: ignore[arg-type]


_WIDE: Final = frozenset({
    "count", "total", "logs", "least", "most", "breakdown_count", "breakdown_total", "breakdown_logs",
    "evidence_values",
})  # fmt: skip


def _table() -> str:
    return repr((_ORDER, pane_table.to_state(_example())))


def _fields_of_groups() -> str:
    return repr((Finding._fields, [f.name for f in fields(Alert)]))


def _fields_of_trails() -> str:
    return repr((_ORDER, [f.name for f in fields(Trail)], Witness._fields))


_ORDER: Final = ([metric.name for metric in METRICS], LABELS)
"""The order of the metrics in the columns of arrays, and of the labels by number."""


def _sketches() -> str:
    return repr(sketch.encode(np.array([0, 2, 3]), np.array([1, 70, 5], np.int16), np.array([2, 1, 1000]), 2))


def _envelope() -> str:
    """The form of the envelope, the length of its digest, the first bytes after that, and the restored state."""
    form, data = stored.stored((1,))
    packed = data[stored.DIGEST_BYTES :]
    return repr((form, stored.DIGEST_BYTES, packed[:4], pickle.dumps(stored.restored((form, data), ""), 5)))


STATES: Final[dict[str, Versioned]] = {
    "source partition": Versioned(
        TelemetryPartition.VERSION, "VERSION of TelemetryPartition in connectors/source.py", {"2": "log", "3": "intake"}
    ),
    "intake": Versioned(Intake.VERSION, "VERSION of Intake in operators/decode/intake.py"),
    "shard": Versioned(
        Shard.VERSION,
        "VERSION of Shard in operators/panes/shard.py",
        {"5": "shard clock", "6": "admission", "7": "pane table", "8": "pane table", "9.*.1": "pane table"},
    ),
    "shard clock": Versioned(ShardClock.VERSION, "VERSION of ShardClock in operators/panes/watermark.py"),
    "admission": Versioned(Admission.VERSION, "VERSION of Admission in operators/panes/admission.py"),
    "pane table": Versioned(
        pane_table.STATE_VERSION,
        "STATE_VERSION in operators/panes/table.py",
        encoded=_table,
    ),
    "rollup": Versioned(Rollup.VERSION, "VERSION of Rollup in operators/panes/rollup.py", {"1.*.1.2.*": "pane table"}),
    "detection": Versioned(monitor.VERSION, "VERSION in operators/detect/engine/monitor.py", encoded=_fields_of_trails),
    "groups": Versioned(
        Groups.VERSION,
        "VERSION of Groups in operators/incidents/groups.py",
        {"4.*": "finding", "5.*.6.*": "member", "6.*": "member", "7.*": "finding"},
        _fields_of_groups,
    ),
    "sink": Versioned(reliable.VERSION, "VERSION in connectors/reliable.py", {"1": "once"}),
    "once": Versioned(once.VERSION, "VERSION in connectors/once.py"),
    "manifest": Versioned(recovery_store.VERSION, "VERSION in flows/recovery/store.py"),
    "sketch": Versioned(sketch.VERSION, "VERSION in operators/panes/sketch.py", encoded=_sketches),
    "envelope": Versioned(stored.FORM, "FORM in operators/stored.py", encoded=_envelope),
}
"""States by name. `log` is not among them: it is the identity of a reader's log, in a form of its connector."""

PARTS: Final[dict[str, dict[str, str]]] = {
    "finding": {"12": "alert", "13": "alert"},
    "member": {"0": "alert"},
    "alert": {},
}
"""Parts that occur in several places of a state and have no version of their own: all the places share one layout."""

OF_STEP: Final = {
    steps.TELEMETRY: "source partition",
    steps.MERGE: "shard",
    steps.ROLLUP: "rollup",
    steps.DETECT: "detection",
    steps.GROUPS: "groups",
    steps.STORE: "sink",
    "alerts_memory": "sink",
    f"{steps.DEAD_LETTERS}_memory": "sink",
}
"""The state that each step of the harness' flow keeps."""

_NAMES: Final = (
    "latency", "ttft", "tokens_per_second", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens",
    "cost", "quality",
)  # fmt: skip
_SHAPE: Final = Shape(
    shards=3,
    time=TimeConfig(correction_s=120),
    panes=PanesConfig(
        dimension_sets=(("service",), ("service", "model"), ("tenant",)), series_per_shard=4, breakdown_values=3
    ),
    detect=DetectConfig.model_validate({
        "warm_up_panes": 12, "false_alarms_per_series_day": 14, "adopt_after_s": 600,
        "metrics": {name: {"watch": True, "min_count": 3} for name in _NAMES},
        "detectors": {name: ["zscore", "mad", "iqr", "cusum", "request_outlier"] for name in _NAMES},
        "limits": [{"metric": "latency", "statistic": "p95", "above": 90_000}, {"metric": "requests", "above": 1e6}],
        "overrides": [{"series": "service=search", "false_alarms_per_series_day": 7}],
    }),
    episodes=EpisodesConfig(resolve_s=60),
    groups=GroupsConfig(),
)  # fmt: skip


def _records() -> Iterator[bytes]:
    """Records of half an hour: `chat` is slow for two minutes and later until the end; some are broken, some late."""
    rng = np.random.default_rng(1)
    start = BEGAN // SECOND - 86_400 + 2_400  # so that an hour ends within these records
    for number, at in enumerate(np.sort(rng.uniform(0, 1_800, 1_800)).tolist()):
        service = ("chat", "search", "agent")[int(rng.integers(3))]
        slow = service == "chat" and (600 <= at < 720 or at >= 1_140)
        event = {
            "event_id": f"e{number}", "timestamp": start + at, "service": service, "model": f"m{int(rng.integers(2))}",
            "tenant": f"t{int(rng.integers(6))}", "latency_ms": float(rng.lognormal(6, 0.2)) * (8 if slow else 1),
            "ttft_ms": 80.0, "prompt_tokens": int(rng.integers(1, 2_000)), "completion_tokens": 100,
            "cached_tokens": 7, "cache_write_tokens": 9, "reasoning_tokens": 8, "quality_score": 0.9, "cost_usd": 0.01,
            "trace_id": f"{number}", "session_id": f"s{number % 9}",
            "status": "error" if rng.random() < 0.03 else "ok",
        }  # fmt: skip
        yield orjson.dumps(event)
        match number % 60:
            case 7:
                yield b"no json"
            case 8:
                yield orjson.dumps({**event, "event_id": f"late{number}", "timestamp": start + at - 70})
            case 9:
                yield json_text([Plain({"gen_ai.operation.name": "invoke_agent"})])


class _Unwatched:
    """An observer of the source that ignores everything."""

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None: ...

    def lagging(self, partition: str, records: int) -> None: ...


class _Run:
    """The stateful parts of the pipeline, wired by hand so that the saved states depend on the records alone."""

    def __init__(self, topic: MemoryTopic) -> None:
        settings = SourceSettings(
            factory=topic,
            decoder=DECODERS["auto"],
            enrich=Enricher(EnrichConfig()),
            time=_SHAPE.time,
            decode=DecodeConfig(dedupe_s=300),
            retry=ReliabilityConfig(),
            batch_size=50,
            now=lambda: BEGAN,
            stopping=lambda: False,
            observer=_Unwatched(),
        )
        source = TelemetrySource(settings)
        self.partitions = [source.build_part("", name, None) for name in source.list_parts()]
        self._cut = PartialPanes(_SHAPE.shards, _SHAPE.time, _SHAPE.panes)
        self._shards: dict[str, Shard] = {}
        self._detects: dict[str, Detect] = {}
        self._rollups: dict[str, Rollup] = {}
        self._groups = Groups(_SHAPE.shards, 10 * SECOND, _SHAPE.groups, 1_800 * SECOND, 60 * SECOND, registry.finds)
        config = ReliabilityConfig()
        self._letters, self._alerts = (
            ReliableSink(MemoryLog(name), config, at_once=True).build_part("", "0", None) for name in ("dead", "alerts")
        )
        self._store = ReliableSink(MemoryStore(), config).build_part("", "memory/0", None)

    def take(self, batch: Batch) -> None:
        self._letters.write_batch([letter_record(item)[1] for item in dead_letters(batch)])
        for key, partial in self._cut(batch):
            new = Shard(_SHAPE.shards, _SHAPE.time, _SHAPE.panes, lambda *_: None, keys=(1, 1))
            for out in self._shards.setdefault(key, new).take([partial]):
                if isinstance(out, Slice):
                    self._rollups.setdefault(out.key, Rollup(_SHAPE.time.pane_s, _SHAPE.panes)).take([out])
                    continue
                for found in self._detects.setdefault(key, detection(_SHAPE)).take([out]):
                    if isinstance(found, Judged):
                        alerts = self._groups.take([found])
                        self._alerts.write_batch([alert_record(alert, False) for alert in alerts])

    def save(self) -> dict[str, list[object]]:
        """The states that a snapshot would hold now, by name."""
        return {
            "source partition": [restored(part.snapshot(), "") for part in self.partitions],
            "shard": [shard.save() for shard in self._shards.values()],
            "detection": [detect.save() for detect in self._detects.values()],
            "rollup": [rollup.save() for rollup in self._rollups.values()],
            "groups": [self._groups.save()],
            "sink": [restored(sink.snapshot(), "") for sink in (self._letters, self._alerts, self._store)],
        }


def sampled() -> dict[str, list[object]]:
    """The states of a run at many moments, from the first poll on, by name."""
    records = list(_records())
    run = _Run(MemoryTopic({"p0": records[::2], "p1": records[1::2]}))
    found: dict[str, list[object]] = {"groups": rare_groups(), "manifest": [manifest()]}
    going = list(run.partitions)
    while going:
        for partition in list(going):
            try:
                batches = partition.next_batch()
            except StopIteration:
                going.remove(partition)
                continue
            for batch in batches:
                run.take(batch)
        if len(going) == len(run.partitions):
            for name, states in run.save().items():
                found.setdefault(name, []).extend(states)
    return found


def _finding(at: int, series: dict[str, str], **changed: Any) -> Finding:
    name = ",".join(f"{key}={value}" for key, value in series.items())
    alert = Alert(
        f"{name}/{at}/0", f"{name}/{at}", "", ("other",), 0, "firing", "low", "spike", series, "latency", "ms",
        at * SECOND, at * SECOND, None, 2.0, 1.0, None, 1.5, 0.5, ("zscore",),
        ({"dimension": "tenant"}, {"share": 0.5}), ({"trace_id": "t"}, {"value": 1.0}), "text",
        {"dashboard": "http://localhost"}, "", ({"factor": "x"}, {"share": 0.5}), 12, at,
    )  # fmt: skip
    whole = Finding(
        at * SECOND, name, "latency", alert.episode_id, 5.0, 1.0, at * SECOND, alert, (("tenant", ("t",)),), True, True
    )
    return whole._replace(fresh=alert)._replace(**changed)


def rare_groups() -> list[object]:
    """States of the alert step in rare situations: a candidate leads, findings wait for the slowest shard."""
    machine = Groups(2, 0, GroupsConfig(settle_s=60), 120 * SECOND, 90 * SECOND, registry.finds)
    member, lead = {"service": "a", "model": "m", "tenant": "t"}, {"service": "a", "model": "m"}
    begun = _finding(100, member)
    candidate = _finding(150, lead, sure=False, explained=30.0)
    quiet = _finding(170, {"service": "z"}, alert=None, fresh=None)
    states: list[object] = [machine.save()]
    for shard, upto in ((0, 200), (1, 180), (0, 900)):
        findings = (begun, candidate, quiet, _finding(190, {"service": "b"})) if upto == 200 else ()
        late = (_finding(850, {"service": "c"}, alert=None), _finding(890, {"service": "c"}))
        machine.take([Judged(shard, upto * SECOND, late if upto == 900 else findings)])
        states.append(machine.save())
    return states


def manifest() -> object:
    """The manifest of a recovery store, after a round trip through JSON."""
    whole = recovery_store.Manifest(4, 10, "source", 2, {"time.pane_s": "10"}, (3, 3), {"alerts": 2})
    return orjson.loads(orjson.dumps(asdict(whole)))
