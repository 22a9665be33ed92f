"""What must be so before the other imports, which take their time; importing this does it.

- Ctrl-C ends the process as SIGTERM does, without a trace of calls, until `flows.main` handles both.
- The cycle collector does not look at what imports make, of which all stays: a tenth of the time they take.
- Standard streams that were closed are the null device, lest a file of ours is opened in their place and printed into.

Only where `bytewax.run` is the program: whoever else imports the flow keeps its own.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading


def _fill_closed_streams() -> None:
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one, as those below are open
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - as long as the process


def _end_when_interrupted() -> None:
    ignored = signal.getsignal(signal.SIGINT) is not signal.default_int_handler  # as under nohup
    if threading.current_thread() is threading.main_thread() and not ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


_program = getattr(sys.modules.get("__main__"), "__spec__", None)
if _program is not None and _program.name == "bytewax.run":
    gc.disable()  # imports make no garbage; `flows.process.run.spare_the_collector` turns it on again
    _end_when_interrupted()
    _fill_closed_streams()
