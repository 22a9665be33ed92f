"""The run of a backtest: recorded events pass the dataflow of production as fast as they can be read.

Settings and steps are those of `flows.main`; only the ends differ. A backtest has only sinks of its own, so it touches
nothing of a deployment: it opens and asks no store, topic, channel, recovery folder or listener of the settings, and
commits no offset.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Final

import orjson
from bytewax.testing import cluster_main, run_main

from connectors.base import ReaderFactory
from connectors.config import FilesConfig, JsonlConfig, is_address
from connectors.files.source import FilesFactory
from connectors.jsonl import JsonlFactory
from connectors.kafka.range import KafkaRange, parse_address
from connectors.sqlite import SqliteFactory
from flows import wiring
from flows.backtest.scoring import Extent
from flows.process.ending import cause
from flows.process.progress import Progress
from flows.process.run import Run, wall_clock
from flows.process.spans import Spans
from flows.settings.layers import Overrides, set_options
from flows.settings.model import CONFIG_VARIABLE, Loaded, Settings, load
from flows.settings.schema import named
from operators.decode.intake import Balance, Batch
from operators.errors import ConfigError, SentinelError
from operators.model import LABELS
from operators.observe.telemetry import Telemetry

log = logging.getLogger(__name__)

EPOCH: Final = timedelta(seconds=10)
ADDRESS: Final = "kafka://"
_LABELS: Final = tuple(LABELS.index(name) for name in ("service", "model", "tenant"))
_OURS: Final = (
    "source.kind", "source.files", "source.simulator", "store", "alerts", "dead_letters", "sinks.rejected_file",
    "metrics", "recovery.relearn", "traces",
)  # fmt: skip


class Interrupted(Exception):
    """A signal stopped the backtest before its end."""


@dataclass
class Observed(Run):
    """The run of a backtest, which also notes the time and the number of series that the figures refer to."""

    spans: Spans = field(default_factory=Spans)
    pairs: set[tuple[str, str]] = field(default_factory=set)
    tenants: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None:
        super().polled(partition, batch, balance, watermark)
        with self._lock:
            for labels in batch.events.combos:
                service, model, tenant = (labels[i] for i in _LABELS)
                self.pairs.add((service, model))
                self.tenants.add(tenant)

    @property
    def extent(self) -> Extent | None:
        """The times of the first and the last event; as series count pairs of service and model, and tenants."""
        if not self.spans.first:
            return None
        first, last = min(self.spans.first.values()), max(self.spans.last.values())
        return Extent(first, last, len(self.pairs) + len(self.tenants))


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay: alerts as on the topic, in order; extent of the figures; balance of the records."""

    alerts: list[bytes]
    extent: Extent | None
    balance: Balance
    seconds: float

    def rows(self) -> list[dict[str, Any]]:
        """The alerts as objects."""
        return [orjson.loads(line) for line in self.alerts]


def choices(sets: Sequence[str]) -> Overrides:
    """The overrides of `--set KEY=VALUE`.

    Raises `ConfigError` where one is not of this form, or sets what a backtest decides itself.
    """
    found = set_options(sets)
    for key in found:
        if any(key == ours or key.startswith(f"{ours}.") for ours in _OURS):
            raise ConfigError(f"--set {named(tuple(key.split('.')))}: a backtest decides this itself; leave it out")
    return found


def settings_of(config: Path | None, sets: Sequence[str], environ: Mapping[str, str], cwd: Path) -> Loaded:
    """The settings of a deployment in this folder, from the file `config` if given, with `sets` over them."""
    if config is not None:
        environ = {**environ, CONFIG_VARIABLE: str(config)}
    return load(environ, cwd, choices(sets))


def sinks_of(settings: Settings, alerts: Path, store: Path | None) -> wiring.Writers:
    """The sinks of a backtest, instead of those of the settings: a file of alerts, and `store` for rows if given."""
    stores = {}
    if store is not None:
        stores["sqlite"] = SqliteFactory(settings.store.sqlite.model_copy(update={"path": store}))
    return wiring.Writers(stores, alerts={"jsonl": JsonlFactory(JsonlConfig(path=alerts))})


def reader(settings: Settings, events: Sequence[str]) -> ReaderFactory:
    """The recorded events: files, or one range of a topic (`kafka://BROKERS/TOPIC?from=..&to=..`)."""
    addresses = [e for e in events if e.startswith(ADDRESS)]
    if not addresses:
        if any(map(is_address, events)):
            raise ConfigError(f"events are the paths of files, or one address that begins with {ADDRESS}")
        files = [Path(e) for e in events]
        return FilesFactory(FilesConfig(paths=tuple(files)), settings.decode.max_record_bytes)
    if len(events) > 1:
        raise ConfigError("a topic is read alone: give one kafka:// address, or files")
    return KafkaRange(settings.kafka, parse_address(addresses[0]))


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """While entered, Ctrl-C and SIGTERM set `stop`, and a second one ends the process at once.

    Does nothing outside the main thread.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def replay(
    settings: Settings,
    factory: ReaderFactory,
    *,
    store: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Replayed:
    """Run the dataflow over all events; `workers` is the number of threads.

    Raises `Interrupted` once `stop` is set, and our own errors unchanged (`ConfigError`, `FatalError`).
    """
    with tempfile.TemporaryDirectory(prefix="backtest-") as folder:
        alerts = Path(folder) / "alerts.jsonl"
        run = Observed(Telemetry(), progress, stop=stop or threading.Event())
        began = time.monotonic()
        try:
            kept = settings.model_copy(update={"sinks": settings.sinks.model_copy(update={"rejected_file": None})})
            flow = wiring.build(kept, run, factory, wall_clock, sinks_of(settings, alerts, store))
            if workers == 1:
                run_main(flow, epoch_interval=EPOCH)  # type: ignore[no-untyped-call]
            else:
                cluster_main(flow, [], 0, epoch_interval=EPOCH, worker_count_per_proc=workers)  # type: ignore[no-untyped-call]
        except SentinelError:
            raise
        except BaseException as error:
            if run.stop.is_set():
                raise Interrupted from None
            if (known := cause(error)) is not None:
                raise known from error
            raise
        finally:
            if progress is not None:
                progress.finish()
            run.unpriced.finish()
        if run.stop.is_set():
            raise Interrupted
        run.dead_letters.finish()
        if isinstance(factory, FilesFactory) and (overlap := run.spans.overlap()):
            log.info(overlap)
        lines = alerts.read_bytes().splitlines() if alerts.exists() else []
        return Replayed(lines, run.extent, run.telemetry.balances.total(), time.monotonic() - began)


def write_whole(path: Path, lines: Sequence[bytes]) -> None:
    """Write all lines or none. Raises `ConfigError` where the file cannot be written."""
    partial = path.with_name(f"{path.name}.tmp")
    try:
        partial.write_bytes(b"".join(line + b"\n" for line in lines))
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ConfigError(f"the file {path} cannot be written: {error.strerror}") from None


def say(text: str) -> None:
    """Print a line to standard error, which may be closed."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
