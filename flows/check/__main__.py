"""`python -m flows.check`: checks the settings, and shows the origin of each value."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from connectors.kafka.client import check_options
from connectors.prices import described, shipped
from flows import __version__
from flows.check.explain import EVERYTHING, explain
from flows.check.series import explain_series
from flows.settings.layers import set_options
from flows.settings.model import CONFIG_EXIT_CODE, Loaded, Settings, load
from flows.settings.reference import detectors, example, metrics, reference
from flows.settings.schema import dotted, setting_at, show, values_of
from operators.config import EnrichConfig
from operators.errors import ConfigError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-sentinel check",
        description="Check the settings: defaults, then the TOML file that SENTINEL_CONFIG names (./sentinel.toml if "
        "it names none), then variables such as SENTINEL_TIME__PANE_S. Prints what is set, and where.",
        epilog=f"exit code: 0 if the settings are right, {CONFIG_EXIT_CODE} if not, 1 if a neighbour is away",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--explain",
        nargs="?",
        const=EVERYTHING,
        metavar="KEY",
        help="show every value and its origin; with a key (time.pane_s, kafka) only that one, and its allowed values",
    )
    parser.add_argument(
        "--series",
        metavar="SERIES",
        help="with --explain: show the settings of detection for this series (service=chat,model=m), or for the series "
        "that a pattern matches, and the override that applies",
    )
    which.add_argument(
        "--connect",
        action="store_true",
        help="also ask whether the source, the store and the other sinks are there; makes files and topics as a start",
    )
    which.add_argument("--example", action="store_true", help="print a settings file with every default, and end")
    which.add_argument("--reference", action="store_true", help="print the reference of all settings, and end")
    which.add_argument("--metrics", action="store_true", help="print the reference of all metrics, and end")
    which.add_argument("--detectors", action="store_true", help="print the reference of all detectors, and end")
    which.add_argument("--version", action="version", version=f"llm-sentinel {__version__}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting over the others; may be repeated"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.series is not None and args.explain is None:
        parser.error("--series goes with --explain")
    for asked, document in (
        (args.example, example),
        (args.reference, reference),
        (args.metrics, metrics),
        (args.detectors, detectors),
    ):
        if asked:
            sys.stdout.write(document())
            return 0
    try:
        loaded = load(os.environ, Path.cwd(), set_options(args.set))
        if args.series is not None:
            print(explain_series(loaded, args.series, args.explain or "detect"))
            return 0
        if args.explain is not None:
            print(explain(loaded, args.explain))
            return 0
        if loaded.settings.uses_kafka:
            check_options(loaded.settings.kafka)
    except ConfigError as error:
        print(f"flows.check: {error}", file=sys.stderr)
        return CONFIG_EXIT_CODE
    by_default = sum(origin.layer in ("default", "preset") for origin in loaded.provenance.values())
    changed = [key for key, origin in loaded.provenance.items() if origin.layer != "default"]
    for parts, value in values_of(loaded.settings):
        if (name := dotted(parts)) in changed:
            print(f"{name} = {show(setting_at(Settings, parts), value)}  ({loaded.origin(name)})")
    print(f"The settings are right: {len(loaded.provenance) - by_default} set, {by_default} by default.")
    print(f"Prices of events without a cost: {_prices(loaded.settings.enrich)}.")
    return _connect(loaded) if args.connect else 0


def _prices(enrich: EnrichConfig) -> str:
    """The tables that give prices, in the order in which they are asked."""
    tables = [] if enrich.prices is None else [enrich.prices]
    if enrich.shipped_prices:
        tables.append(f"the {described(shipped())} that are shipped (enrich.shipped_prices)")
    return ", then ".join(tables) or "none (enrich.prices, enrich.shipped_prices)"


def _connect(loaded: Loaded) -> int:
    from flows.check import neighbours  # loads every connector, which a check of the settings does not need

    answers = []
    for answer in neighbours.ask(loaded.settings):
        print(answer, flush=True)
        answers.append(answer)
    return neighbours.exit_code(answers)


if __name__ == "__main__":
    sys.exit(main())
