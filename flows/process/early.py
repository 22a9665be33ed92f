"""Prepares the process before the slow imports; importing this module does it.

- Ctrl-C ends the process as SIGTERM does, without a traceback, until `flows.main` handles both.
- The cycle collector is off during the imports, whose objects all stay: that saves a tenth of their time.
- Closed standard streams become the null device. Otherwise a file of ours would get their number and be printed into.

It does so only where `bytewax.run` is the program: other programs that import the flow keep their own ways.
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
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
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
