"""`python -m flows.backtest`: runs the flow of production on recorded events and scores its alerts."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from connectors.console import PipeConsole
from flows.backtest import compare, report, scoring, series_input, view
from flows.backtest.replay import Interrupted, Replayed, reader, replay, say, settings_of, stopping, write_whole
from flows.backtest.scoring import Incident, PredictedEpisode, Score
from flows.folder import STORE_FILE
from flows.process.dead_letters import DATA_EXIT_CODE, nothing_usable
from flows.process.logs import set_up_logging
from flows.process.panics import keep_back
from flows.process.progress import Progress
from flows.report.markup import PAGE_FILE
from flows.settings.model import CONFIG_EXIT_CODE, Loaded
from flows.settings.schema import secrets_of
from operators.errors import ConfigError, SentinelError
from operators.incidents.alert_json import rfc3339
from operators.model import SEVERITIES

INTERRUPTED_EXIT_CODE: Final = 130
GONE_EXIT_CODE: Final = 141
"""The exit code if the reader of standard output ended early, as `head` does."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-sentinel backtest",
        description="Run recorded events through the flow of production, by event time alone, as fast as they can be "
        "read. Nothing of a deployment is touched: no topic is written, no offset committed, no store opened. Settings "
        "come from sentinel.toml and SENTINEL_ variables, as everywhere; source and sinks are the backtest's own.",
        epilog=f"exit code: 0; 1 if the run failed; {DATA_EXIT_CODE} if nothing was usable; "
        f"{CONFIG_EXIT_CODE} if settings, files or options are wrong; {INTERRUPTED_EXIT_CODE} after Ctrl-C",
    )
    parser.add_argument(
        "events",
        nargs="*",
        metavar="EVENTS",
        help="files of JSON lines, CSV or Parquet, or folders of them; or kafka://BROKERS/TOPIC?from=..&to=.., where "
        "each bound is an offset (of every partition) or an RFC 3339 time, and [kafka] says how to connect",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="labelled incidents to score the alerts by")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file; default: as for the flow itself")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting over the others; may be repeated"
    )
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="run two settings files and show what B changes"
    )
    parser.add_argument("--alerts", type=Path, metavar="FILE", help="write the alerts here, as they are on the topic")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write a store and an HTML page into this folder")
    parser.add_argument(
        "--series", type=Path, metavar="PATH", help="instead of events: a file or folder of timestamp,value series"
    )
    parser.add_argument(
        "--scores", type=Path, metavar="PATH", help="with --series: write timestamp,value,anomaly_score here"
    )
    parser.add_argument(
        "--every-point", action="store_true", help="with --scores: the score of each point, not each anomaly once"
    )
    parser.add_argument(
        "--min-severity", choices=SEVERITIES, default="low", help="leave out episodes below it; default: low"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="worker threads; they change no alert")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


def _check(args: argparse.Namespace) -> None:
    """Raises `ConfigError` if options do not go together."""
    if args.series is not None:
        wrong = [f"--{name}" for name in ("labels", "compare", "alerts", "report") if getattr(args, name) is not None]
        if wrong or args.events:
            raise ConfigError(f"--series takes no {wrong[0] if wrong else 'events'}: leave one of the two out")
        return
    if args.scores is not None or args.every_point:
        raise ConfigError("--scores and --every-point go with --series: name a file or folder of series")
    if not args.events:
        raise ConfigError("no events: name files, or kafka://BROKERS/TOPIC; --help says more")
    if args.compare is not None and (args.report is not None or args.config is not None or args.alerts is not None):
        raise ConfigError("--compare names both settings files and prints: leave --config, --alerts and --report out")
    if not 1 <= args.workers <= 64:
        raise ConfigError(f"--workers {args.workers}: between 1 and 64")
    if args.alerts is not None and not args.alerts.absolute().parent.is_dir():
        raise ConfigError(f"--alerts: the file {args.alerts} has no folder {args.alerts.parent}: make it")


class _Backtest:
    """One call of the command with events."""

    def __init__(self, args: argparse.Namespace, environ: Mapping[str, str], stop: threading.Event) -> None:
        self._args = args
        self._environ = environ
        self._stop = stop
        self._labels = None if args.labels is None else scoring.incidents(args.labels)

    def _load(self, config: Path | None) -> Loaded:
        return settings_of(config, self._args.set, self._environ, Path.cwd())

    def _replay(
        self, loaded: Loaded, store: Path | None = None
    ) -> tuple[Replayed, list[PredictedEpisode], Score | None]:
        factory = reader(loaded.settings, self._args.events)
        result = replay(
            loaded.settings,
            factory,
            store=store,
            workers=self._args.workers,
            progress=Progress(),
            stop=self._stop,
        )
        episodes = scoring.episodes(result.rows(), self._args.min_severity)
        if self._labels is None:
            return result, episodes, None
        pane_s = loaded.settings.time.pane_s
        return result, episodes, scoring.score(episodes, self._labels, result.extent, pane_s=pane_s)

    def run(self, console: Console) -> int:
        """Replay one configuration, write the files that the options name, print the result; returns the exit code."""
        args = self._args
        loaded = self._load(args.config)
        set_up_logging(loaded.settings.log.level, loaded.settings.log.format, None, secrets_of(loaded.settings))
        folder = None if args.report is None else report.new_folder(args.report)
        store = None if folder is None else folder / STORE_FILE
        try:
            result, episodes, score = self._replay(loaded, store)
        except BaseException:
            if folder is not None:
                report.remove_store(folder)
            raise
        if args.alerts is not None:
            write_whole(args.alerts, result.alerts)
        if folder is not None:
            report.write(folder, loaded, result, score)
        if args.json:
            _print_json(summary(result, episodes, score, self._labels))
        else:
            view.render(console, result, episodes, score)
            if folder is not None:
                console.print(f"page: {folder / PAGE_FILE}", highlight=False, markup=False, soft_wrap=True)
        return _exit_code(result)

    def compare(self, console: Console) -> int:
        """Replay two configurations over the same events, and print their differences; returns the exit code."""
        first, second = self._args.compare
        loaded = [self._load(path) for path in (first, second)]
        secrets = [secret for one in loaded for secret in secrets_of(one.settings)]
        set_up_logging(loaded[0].settings.log.level, loaded[0].settings.log.format, None, secrets)
        a, b = (self._replay(settings) for settings in loaded)
        difference = compare.compare(a[1], b[1])
        scores = None if a[2] is None or b[2] is None else (a[2], b[2])
        if self._args.json:
            only = [[_episode(e) for e in episodes] for episodes in difference.only]
            _print_json({
                "a": {"config": str(first), **summary(*a, self._labels)},
                "b": {"config": str(second), **summary(*b, self._labels)},
                "both": [{"a": x.id, "b": y.id} for x, y in difference.both],
                "only_a": only[0],
                "only_b": only[1],
            })  # fmt: skip
        else:
            names = (str(first), str(second))
            view.render_comparison(console, names, (a[0], b[0]), (a[1], b[1]), scores, difference)
        return _exit_code(a[0], b[0])


def _exit_code(*results: Replayed) -> int:
    found = [why for result in results if (why := nothing_usable(result.balance)) is not None]
    if len(found) < len(results):
        return 0
    say(f"flows.backtest: {found[0]}")
    return DATA_EXIT_CODE


def _episode(episode: PredictedEpisode) -> dict[str, Any]:
    return {
        "episode_id": episode.id,
        "kind": episode.kind,
        "metric": episode.metric,
        "severity": SEVERITIES[episode.severity],
        "series": dict(episode.series),
        "at": rfc3339(episode.at),
        "since": rfc3339(episode.since),
        "until": None if episode.until is None else rfc3339(episode.until),
    }


def summary(
    result: Replayed, episodes: Sequence[PredictedEpisode], score: Score | None, labels: Sequence[Incident] | None
) -> dict[str, Any]:
    """The result for JSON: the records read, every episode, and with labels the figures and each incident's outcome."""
    extent = result.extent
    out: dict[str, Any] = {
        "balance": asdict(result.balance),
        "first": None if extent is None else rfc3339(extent.first),
        "last": None if extent is None else rfc3339(extent.last),
        "series": None if extent is None else extent.series,
        "seconds": round(result.seconds, 3),
        "alerts": len(result.alerts),
        "episodes": [_episode(e) for e in episodes],
    }
    if score is not None and labels is not None:
        out["figures"] = score.figures
        out["incidents"] = [
            {
                "id": o.incident.id, "type": o.incident.kind, "entity": dict(o.incident.entity), "found": o.found,
                "exact": o.exact, "delay_s": o.delay_s, "episodes": o.episodes,
            }
            for o in score.outcomes
        ]  # fmt: skip
        out["false"] = [e.id for e in score.false]
    return out


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(value) + b"\n")


def _series(args: argparse.Namespace, environ: Mapping[str, str], stop: threading.Event, console: Console) -> None:
    """Score plain series, and print the number of anomalies (with --every-point: anomalous points) of each."""
    loaded = settings_of(args.config, args.set, environ, Path.cwd())
    set_up_logging(loaded.settings.log.level, loaded.settings.log.format, None, secrets_of(loaded.settings))
    files = series_input.find(args.series)
    rows = []
    for name, path in files.items():
        if stop.is_set():
            raise Interrupted
        series = series_input.read(path)
        found = series_input.scores(series, loaded.settings)
        if not args.every_point:
            found = series_input.told(found)
        if args.scores is not None:
            series_input.write(series_input.target(args.scores, name, alone=args.series.is_file()), series, found)
        rows.append({
            "series": str(name), "points": len(found), "interval_s": series.interval_s,
            "anomalies": int((found >= 0.5).sum()), "highest": float(found.max(initial=0.0)),
        })  # fmt: skip
        if not args.json:
            r = rows[-1]
            console.print(
                f"{r['series']}: {r['points']:,} points every {r['interval_s']} s, {r['anomalies']:,} anomalies, "
                f"highest score {r['highest']:.3f}",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip
    if args.json:
        _print_json({"series": rows})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = _parser().parse_args(argv)
    stop = threading.Event()
    console = PipeConsole()
    code = 0
    try:
        _check(args)
        with stopping(stop):
            if args.series is not None:
                _series(args, os.environ, stop, console)
            elif args.compare is not None:
                code = _Backtest(args, os.environ, stop).compare(console)
            else:
                code = _Backtest(args, os.environ, stop).run(console)
        sys.stdout.flush()
    except Interrupted:
        say("flows.backtest: stopped before the end of the events; nothing was written")
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:
        # Without this Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GONE_EXIT_CODE
    except SentinelError as error:
        say(f"flows.backtest: {error}")
        return CONFIG_EXIT_CODE if isinstance(error, ConfigError) else 1
    return code


if __name__ == "__main__":
    keep_back()
    sys.exit(main())
