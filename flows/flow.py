"""`llm-sentinel flow`: becomes `python -m bytewax.run flows.main`, the flow as production starts it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

DEFAULTS: Final = {"BYTEWAX_SNAPSHOT_INTERVAL": "10", "BYTEWAX_RECOVERY_BACKUP_INTERVAL": "0"}
"""What Bytewax must be told beside a recovery folder, in seconds."""


def main() -> None:
    """Become the flow, with the arguments of this process as options of bytewax.run."""
    parser = argparse.ArgumentParser(
        prog="llm-sentinel flow",
        usage="llm-sentinel flow [-r FOLDER] [-s SECONDS] [-b SECONDS] [-w WORKERS] [-i PROCESS -a ADDRESSES]",
        description="Start the flow in this process, as `python -m bytewax.run flows.main` does. Settings come from "
        "sentinel.toml and SENTINEL_ variables, as everywhere. With -r FOLDER it keeps its state there and goes on "
        "from it. -s: time between snapshots (10 s); -b: time for which older ones are kept (0 s); -w: worker threads; "
        "-i and -a: the number of this process and the addresses of all.",
        epilog="exit code: 0 after a last snapshot, 78 if the set-up is wrong, 1 if something failed",
    )
    _, options = parser.parse_known_args()
    os.environ.update({**DEFAULTS, **os.environ})
    os.execv(sys.executable, [sys.executable, "-m", "bytewax.run", "flows.main", *options])  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
