"""`python -m flows.decode`: prints what the flow would make of payloads."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from connectors.console import PipeConsole
from flows.decode.payload import Outcome, decode_file
from flows.decode.view import show
from flows.process.dead_letters import DATA_EXIT_CODE
from flows.settings.layers import set_options
from flows.settings.model import CONFIG_EXIT_CODE, load
from operators.decode.registry import NAMES
from operators.errors import ConfigError

GONE_EXIT_CODE = 141
"""The exit code if the reader of standard output ended early, as `head` does."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-sentinel decode",
        description="What the flow would make of payloads: the calls in them, and where each field was found. A file "
        "is one record; a file whose name ends in .jsonl or .ndjson is a record a line; both may be compressed (.gz, "
        ".zst). Each file is taken as a partition of its own. On a terminal it is a table, else a JSON object a file.",
        epilog=f"exit code: 0; {DATA_EXIT_CODE} if nothing was usable; {CONFIG_EXIT_CODE} if the settings "
        "are wrong or a file cannot be read",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a payload, as a topic or a file has it")
    parser.add_argument(
        "--format",
        choices=NAMES,
        help="the format of the records; default: `source.format` of the settings",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a file, also on a terminal")
    parser.add_argument("--table", action="store_true", help="the table, also where the output is no terminal")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting over the others; may be repeated"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = _parser().parse_args(argv)
    console = PipeConsole(highlight=False)
    table = args.table or (sys.stdout.isatty() and not args.json)
    usable = dead = False
    try:
        settings = load(os.environ, Path.cwd(), set_options(args.set)).settings
        for path in args.files:
            outcome = decode_file(
                path, args.format or settings.source.format, settings.source.mapping, settings.decoding
            )
            usable, dead = usable or bool(outcome.events), dead or bool(outcome.dead_letters)
            _print(outcome, console if table else None)
    except ConfigError as error:
        print(f"flows.decode: {error}", file=sys.stderr)
        return CONFIG_EXIT_CODE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GONE_EXIT_CODE
    return DATA_EXIT_CODE if dead and not usable else 0


def _print(outcome: Outcome, console: PipeConsole | None) -> None:
    if console is not None:
        show(outcome, console)
    else:
        sys.stdout.buffer.write(outcome.as_json() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
