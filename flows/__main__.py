"""`llm-sentinel COMMAND` or `python -m flows COMMAND`: runs the module of the command, as `python -m` would.

Importing this module loads nothing of the flow, so that help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from difflib import get_close_matches
from typing import Final

from flows import __version__

PROGRAM: Final = "llm-sentinel"
COMMANDS: Final = {
    "run": "Run the main job in a folder below runs/, then show its report.",
    "demo": "Watch the flow on simulated services, on the terminal.",
    "check": "Check the settings and tell where they come from; ask whether the neighbours are there.",
    "report": "Show what a run found, on the terminal and as a page.",
    "backtest": "Run recorded events through the flow of production and score its alerts.",
    "decode": "Show what the flow makes of records.",
    "simulate": "Write simulated traffic and the labels of its incidents.",
    "flow": "Start the flow in this process, as in production.",
    "cluster": "Start the flow in several processes that fall and come back together.",
    "rescale": "Move recovery partitions between volumes, for another number of pods.",
}
"""The commands, each a module of this package, with a sentence on each."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND ...",
        description="Watches LLM traffic and says, with evidence, what has become abnormal.",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:<10}{what}" for name, what in COMMANDS.items()),
                f"\n{PROGRAM} COMMAND --help says more about one of them.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", help="one of those below")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def main() -> None:
    """Run the command that the arguments name; ends with its exit code, or with 2 where there is no such command."""
    parser = _parser()
    name = parser.parse_args(sys.argv[1:2]).command
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        parser.error(f"there is no command {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    del sys.argv[1]
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
