"""`python -m flows.rescale`: moves the recovery partitions of stopped pods, so that their number can change."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flows.recovery.rescale import rescale
from flows.settings.model import CONFIG_EXIT_CODE
from operators.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="llm-sentinel rescale",
        description='Move recovery partitions between the volumes of stopped pods (recovery.layout = "own"), '
        "so that another number of pods can go on from the last snapshot.",
        epilog=f"exit code: 0; {CONFIG_EXIT_CODE} if something must be put right first, 1 if the move broke off. "
        "The command prints the reason and can then be run again.",
    )
    parser.add_argument("--to", type=int, required=True, metavar="PODS", help="the new number of pods")
    parser.add_argument("folders", nargs="+", type=Path, help="the recovery folder of each pod, old and new, in order")
    args = parser.parse_args(argv)
    try:
        moved = rescale(args.folders, args.to)
    except ConfigError as error:
        print(f"flows.rescale: {error}", file=sys.stderr)
        return CONFIG_EXIT_CODE
    except OSError as error:
        print(f"flows.rescale: broke off, nothing is lost: {error}; put that right and run it again", file=sys.stderr)
        return 1
    print("\n".join(moved or ["nothing had to be moved"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
