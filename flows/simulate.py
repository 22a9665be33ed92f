"""`python -m flows.simulate`: writes simulated LLM traffic to a file, a pipe or Kafka, and labels of its incidents."""

from __future__ import annotations

import argparse
import gzip
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, cast

import orjson
from pydantic import ValidationError

from connectors.base import Chunk
from connectors.kafka.feed import Feed
from connectors.simulation.config import IncidentsConfig
from connectors.simulator import Simulator, SimulatorConfig, wall_clock
from flows.process.progress import Progress
from flows.settings.model import CONFIG_EXIT_CODE, load
from operators.errors import ConfigError, SentinelError
from operators.units import moment

_BATCH: Final = 2_000
_NAP_S: Final = 0.05
_DEFAULTS = SimulatorConfig()

Target = Callable[[Chunk], None]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-sentinel simulate",
        description="Write simulated LLM traffic as JSON, one request a record, in the order in which they end. "
        "The same options give the same bytes, unless --live.",
        epilog="examples: llm-sentinel simulate --out traffic.jsonl.gz --labels incidents.jsonl --rate 20; "
        "llm-sentinel simulate --kafka localhost:9092 --live --rate 50",
    )
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument("--out", metavar="FILE", help="the file, compressed if it ends in .gz; - for standard output")
    to.add_argument(
        "--kafka",
        metavar="BROKERS",
        help="write to Kafka; other options come from the settings ([kafka]). Records have the times of their events, "
        "so a topic that deletes by age (by default after a week) must keep older ones",
    )
    parser.add_argument("--topic", help="the topic, made if it is missing. Default: the first of kafka.topics")
    parser.add_argument("--labels", metavar="FILE", help="write the incidents here, one JSON object a line")
    for name, unit in (("hours", "HOURS"), ("rate", "PER_SECOND"), ("seed", "NUMBER"), ("start", "TIME")):
        default = getattr(_DEFAULTS, name)
        shown = default.isoformat().replace("+00:00", "Z") if name == "start" else f"{default:g}"
        about = SimulatorConfig.model_fields[name].description
        parser.add_argument(f"--{name}", metavar=unit, help=f"{about} Default: {shown}")
    live = parser.add_argument_group("live")
    live.add_argument("--live", action="store_true", help="write events of the present as time passes, until Ctrl-C")
    live.add_argument("--history", metavar="HOURS", help="begin this many hours ago. Default: 0")
    live.add_argument(
        "--speed", metavar="TIMES", help=f"speed of the history in times of real time. Default: {_DEFAULTS.speed:g}"
    )
    wrong = parser.add_argument_group("incidents")
    wrong.add_argument("--no-incidents", action="store_true", help="ordinary traffic only")
    for name, unit in (("per_day", "NUMBER"), ("calm_h", "HOURS"), ("kinds", "KIND,KIND")):
        about = IncidentsConfig.model_fields[name].description
        default = getattr(_DEFAULTS.incidents, name)
        shown = ", ".join(default) if name == "kinds" else f"{default:g}"
        wrong.add_argument(f"--{name.replace('_', '-')}", metavar=unit, help=f"{about} Default: {shown}")
    return parser


def _config(args: argparse.Namespace) -> SimulatorConfig:
    if not args.live and (args.history or args.speed):
        raise ConfigError("--history and --speed go with --live")
    if args.live and args.hours:
        raise ConfigError("--hours: a live simulation goes on until Ctrl-C")
    incidents: dict[str, Any] = {"per_day": args.per_day, "calm_h": args.calm_h}
    incidents["kinds"] = args.kinds.split(",") if args.kinds else None
    if args.no_incidents:
        incidents["per_day"] = 0
    given = {name: getattr(args, name) for name in ("seed", "start", "hours", "rate", "speed")}
    given |= {"history_h": args.history, "live": args.live, "partitions": 1}
    given["incidents"] = {k: v for k, v in incidents.items() if v is not None}
    try:
        return SimulatorConfig.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as e:
        first = e.errors()[0]
        where = [str(part) for part in first["loc"] if not isinstance(part, int)]
        option = {"calm_h": "calm-h", "per_day": "per-day", "history_h": "history"}.get(where[-1], where[-1])
        raise ConfigError(f"--{option}: {first['msg']}") from None


def _is_regular(path: Path) -> bool:
    """Whether the path is, or would become, a regular file (not a pipe or a device)."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


@contextmanager
def _opened(out: str, live: bool = False) -> Iterator[IO[bytes]]:
    """The opened output. A file gets its name when it is complete, and is removed after a failure.

    The file of a live simulation is never complete: it has its name at once and stays.
    """
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    whole = _is_regular(path) and not live
    written = path.with_name(f"{path.name}.partial") if whole else path
    try:
        with written.open("wb") as raw:
            if path.suffix == ".gz":
                # No name and no time in the header: the same options give the same bytes.
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield raw
        if whole:
            written.replace(path)
    except BaseException:
        if whole:
            written.unlink(missing_ok=True)
        raise


@contextmanager
def _to_file(out: str, live: bool) -> Iterator[Target]:
    with _opened(out, live) as to:

        def write(chunk: Chunk) -> None:
            to.write(b"\n".join(chunk.values) + b"\n")
            if live:
                to.flush()

        yield write


@contextmanager
def _to_kafka(brokers: str, topic: str | None) -> Iterator[Target]:
    """The topic as a target; at the end, also after an interrupt, all records handed over are delivered."""
    settings = load(os.environ, Path.cwd(), {"kafka.brokers": (brokers, "--kafka")}).settings.kafka
    feed = Feed(settings, topic or settings.topics[0])

    def send(chunk: Chunk) -> None:
        assert chunk.arrivals is not None
        feed.send(chunk.values, chunk.arrivals)

    try:
        yield send
    finally:
        feed.close()


class Written(Progress):
    """The progress of writing instead of reading."""

    def line(self, seconds: float) -> str:
        """The progress after this many seconds, as text."""
        parts = [f"{self.events:,} requests"]
        if seconds >= 0.5:
            parts.append(f"{self.events / seconds:,.0f}/s")
        if self.event_time_us is not None:
            parts.append(f"at {moment(self.event_time_us)}")
        return ", ".join(parts)


class _Count:
    """The number of requests written so far and the last arrival; `shown`: whether progress is printed."""

    def __init__(self, shown: bool) -> None:
        self.requests = 0
        self.last: int | None = None
        self._progress = Written() if shown else None

    def add(self, chunk: Chunk) -> None:
        assert chunk.arrivals is not None
        self.requests += len(chunk.values)
        self.last = int(chunk.arrivals[-1])
        if self._progress is not None:
            self._progress.update(len(chunk.values), self.last)

    def finish(self) -> None:
        if self._progress is not None:
            self._progress.finish()


def pump(simulator: Simulator, to: Target, count: _Count) -> None:
    """Hand every record of the simulator to the target, one partition after the other; a live simulator never ends."""
    for partition in simulator.partitions():
        reader = simulator.open(partition, None)
        finished = False
        while not finished:
            chunk = reader.poll(_BATCH)
            if chunk.values:
                to(chunk)
                count.add(chunk)
            elif not chunk.finished:
                time.sleep(_NAP_S)
            finished = chunk.finished
        reader.close()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _write_labels(path: str, labels: Sequence[dict[str, object]]) -> None:
    with _opened(path) as to:
        to.writelines(orjson.dumps(label) + b"\n" for label in labels)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (78: an option is wrong, 1: the output fails, 130: Ctrl-C)."""
    args = _parser().parse_args(argv)
    count = _Count(bool(args.kafka) or (sys.stderr.isatty() and args.out != "-"))
    began = wall_clock()
    place = args.out or ""
    stopped = False
    try:
        config = _config(args)
        simulator = Simulator(config)
        if args.labels and not config.live:
            _write_labels(args.labels, simulator.labels())
        target: AbstractContextManager[Target]
        target = _to_kafka(args.kafka, args.topic) if args.kafka else _to_file(args.out, config.live)
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            with target as to:
                pump(simulator, to, count)
        except KeyboardInterrupt:
            stopped = True
        finally:
            signal.signal(signal.SIGTERM, before)
            count.finish()
        labels = simulator.labels(*((began - config.history_us, wall_clock()) if config.live else ()))
        if args.labels and config.live:
            _write_labels(args.labels, labels)
    except SentinelError as e:
        print(f"flows.simulate: {e}", file=sys.stderr)
        return CONFIG_EXIT_CODE if isinstance(e, ConfigError) else 1
    except BrokenPipeError:
        # The reader of the pipe ended early, as `head` does. Without this Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as e:
        print(
            f"flows.simulate: cannot write {str(e.filename or place).removesuffix('.partial')}: {e.strerror}",
            file=sys.stderr,
        )
        return 1
    if stopped and not config.live and not args.kafka:
        print("flows.simulate: stopped; nothing was left behind", file=sys.stderr)
        return 130
    where = "Kafka" if args.kafka else "standard output" if args.out == "-" else args.out
    print(f"{count.requests:,} requests to {where}; {len(labels)} incidents", file=sys.stderr)
    return 130 if stopped and not config.live else 0


if __name__ == "__main__":
    sys.exit(main())
