"""`python -m flows.report`: the findings of a run, from its SQLite store."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import orjson

from connectors.console import PipeConsole
from flows.report.markup import PAGE_FILE, write_page
from flows.report.page import compose
from flows.report.read import RUNS, find_store, gather, newest_run, short_path
from flows.report.terminal import render
from operators.errors import ConfigError

UNWRITABLE_EXIT_CODE: Final = 73
"""The exit code if the page cannot be written (EX_CANTCREAT of sysexits.h); the report is printed all the same."""
GONE_EXIT_CODE: Final = 141
"""The exit code if the reader of standard output ended early, as `head` does."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-sentinel report",
        description="What a run found: its traffic, one entry an episode, and where the rows are.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run", type=Path, metavar="FOLDER", help=f"the run's folder; default: the newest in {RUNS}/")
    which.add_argument("--store", type=Path, metavar="FILE", help="the SQLite store itself")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="most episodes to show, 0 for all; default: 20"
    )
    parser.add_argument("--sort", choices=("severity", "time"), default="severity", help="worst first, or newest first")
    page = parser.add_mutually_exclusive_group()
    page.add_argument(
        "--html", type=Path, metavar="FILE", help=f"where the page is written; default: {PAGE_FILE} beside the store"
    )
    page.add_argument("--no-html", action="store_true", help="write no page")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, with all episodes; no page unless --html is given"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (78: there is no such store, or it is another program's)."""
    args = _parser().parse_args(argv)
    try:
        store = args.store if args.store is not None else find_store(args.run if args.run is not None else newest_run())
        report = gather(store, args.sort)
        target = args.html or (None if args.no_html or args.json else store.parent / PAGE_FILE)
        page = None if target is None else compose(store, report)
    except ConfigError as e:
        print(f"flows.report: {e}", file=sys.stderr)
        return 78
    failed = None
    if target is not None and page is not None:
        failed = write_page(target, page)
        report = report if failed else replace(report, page=short_path(target))
    try:
        if args.json:
            sys.stdout.buffer.write(orjson.dumps(asdict(report)) + b"\n")
        else:
            render(report, PipeConsole(highlight=False), max(0, args.limit))
        sys.stdout.flush()
    except BrokenPipeError:
        # Without this Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GONE_EXIT_CODE
    if failed:
        print(f"flows.report: {failed}", file=sys.stderr)
        return UNWRITABLE_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
