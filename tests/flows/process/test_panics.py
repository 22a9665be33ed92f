"""Rust's message about an error is kept back if a sentence replaces it; nothing else is kept back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PANIC = """thread 'main' panicked at src/recovery.rs:1:1:
SqliteFailure(no)
stack backtrace:
   0: a
"""


def said(program: str, end: str = "") -> str:
    """The standard error of the program."""
    head = "import os, sys, time\nfrom flows.process import panics\n"
    done = subprocess.run(
        [sys.executable, "-c", head + program, PANIC], cwd=ROOT, env={**os.environ}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_panic_is_dropped_if_the_process_says_why_it_ends() -> None:
    found = said(
        "kept = panics.Panics()\nos.write(2, b'native\\nbefore ' + sys.argv[1].encode() + b'more\\n')\n"
        "kept.end(show=False)\nprint('why', file=sys.stderr)\nos.write(2, b'after\\n')"
    )
    assert found == "native\nbefore why\nafter\n"


def test_a_panic_is_shown_if_the_process_does_not_say_why_it_ends() -> None:
    found = said("kept = panics.Panics()\nos.write(2, sys.argv[1].encode())\nkept.end(show=True)\nkept.end(show=True)")
    assert found == PANIC


def test_a_panic_is_shown_if_the_process_lives_on() -> None:
    found = said(
        "panics.HELD_S = 0.1\nkept = panics.Panics()\nos.write(2, sys.argv[1].encode())\ntime.sleep(0.5)\n"
        "os.write(2, b'later\\n')\ntime.sleep(0.3)"
    )
    assert found == PANIC + "later\n"


def test_a_panic_that_comes_in_pieces_is_one() -> None:
    found = said(
        "kept = panics.Panics()\nfor byte in sys.argv[1].encode():\n    os.write(2, bytes([byte]))\n"
        "kept.end(show=False)"
    )
    assert found == ""


def test_other_lines_pass_at_once_and_an_unfinished_one_at_the_end() -> None:
    assert said("panics.Panics()\nos.write(2, b'one\\ntw')\ntime.sleep(0.2)\nprint('three', file=sys.stderr)") == (
        "one\nthree\ntw"
    )


def test_a_fast_writer_is_not_held_up() -> None:
    program = "import signal\nsignal.alarm(20)\nkept = panics.Panics()\nsys.setswitchinterval(1000)\n"
    program += (
        "try:\n    while True:\n        os.write(2, b'x' * 100_000)\nexcept BlockingIOError:\n    kept.end(show=False)"
    )
    assert set(said(program)) == {"x"}


@pytest.mark.parametrize("module", ["bytewax.run", "flows.backtest.__main__", "json.tool"])
def test_only_processes_that_run_a_dataflow_keep_panics_back(module: str) -> None:
    program = (
        f"import types\nmain = sys.modules['__main__']\nmain.__spec__ = types.SimpleNamespace(name={module!r})\n"
        "print(panics.keep_back() is not None, file=sys.stderr)"
    )
    assert said(program) == f"{module != 'json.tool'}\n"
