"""`python -m flows.cluster --workers N`: one flow in N processes, which end together and start together.

After a crash all resume from the last snapshot: one alone cannot, since its peers have gone on from there.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flows.cluster.launch import SNAPSHOT_S, arguments_of, environments
from flows.cluster.members import Members, free_addresses
from flows.cluster.supervisor import GIVEN_UP_EXIT_CODE, Stop, Supervisor
from flows.process.logs import set_up_logging
from flows.settings.model import CONFIG_EXIT_CODE, load
from flows.settings.schema import secrets_of
from operators.errors import ConfigError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-sentinel cluster",
        description="Run one flow in several processes on this host. When one dies the others are ended, and all start "
        "again from the last snapshot, after a pause that doubles with each recent restart. SIGTERM, SIGHUP or Ctrl-C "
        "ends all with a last snapshot; a second signal ends them at once. The limits are settings: cluster.* "
        "(`llm-sentinel check --explain cluster`). All other arguments go to bytewax.run: -r FOLDER (required), "
        f"-s SECONDS between snapshots ({SNAPSHOT_S}), -b, -a ADDRESSES (default: free ports on loopback).",
        epilog="Process i serves metrics at metrics.port + i, and writes its balance to a file with -i in its name. "
        f"Exit code: 0 if all ended with a last snapshot, {CONFIG_EXIT_CODE} if the settings are wrong, "
        f"{GIVEN_UP_EXIT_CODE} after too many restarts, 1 if a stop left no last snapshot, 128 + n "
        "after a second signal. "
        "Example: llm-sentinel cluster --workers 2 -r recovery",
        allow_abbrev=False,
    )
    parser.add_argument("--workers", type=int, required=True, metavar="N", help="the number of processes")
    parser.add_argument("--flow", default="flows.main", help="the flow that bytewax.run runs. Default: flows.main")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if args.workers < 1:
        parser.error("--workers must be at least 1")
    try:
        settings = load(os.environ, Path.cwd()).settings
        arguments, addresses = arguments_of(rest, os.environ, args.workers)
        if settings.recovery.layout == "own":
            raise ConfigError(
                'recovery.layout = "own" is for pods with a volume each; the processes of one host share their folder'
            )
    except ConfigError as error:
        print(f"flows.cluster: {error}", file=sys.stderr)
        return CONFIG_EXIT_CODE
    set_up_logging(settings.log.level, settings.log.format, None, secrets_of(settings))
    stop = Stop()
    stop.install()
    own = environments(settings, os.environ, args.workers)

    def start() -> Members:
        return Members(args.flow, arguments, addresses or free_addresses(args.workers), own)

    return Supervisor(start, settings.cluster, stop).run()


if __name__ == "__main__":
    sys.exit(main())
