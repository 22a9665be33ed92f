"""Fixtures and hooks for all tests."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import settings

pytest_plugins = ("tests.brokers",)

ROOT = Path(__file__).parent.parent
STRICT = os.environ.get("LLMS_TEST_STRICT") == "1"

settings.register_profile("default", deadline=None)  # the machine may be busy
settings.register_profile("uncompiled", deadline=None, max_examples=10)
settings.load_profile("default")


def pytest_configure() -> None:
    """Restore Ctrl-C, which some tests send: a shell makes its background processes and their children ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of single parts before the tests of the whole, since they fail sooner."""
    first = ("tests/operators/", "tests/contracts/", "tests/connectors/", "tests/flows/")
    items.sort(key=lambda item: [item.nodeid.startswith(folder) for folder in first], reverse=True)


def examples(most: int) -> settings:
    """Settings for this many examples of a law; the profile `uncompiled` runs at most its own number."""
    uncompiled = settings.get_current_profile_name() == "uncompiled"
    return settings(max_examples=min(most, settings().max_examples) if uncompiled else most)


def leave_out(why: str) -> NoReturn:
    """Skip the test for this reason; under LLMS_TEST_STRICT=1 the test fails."""
    if STRICT:
        pytest.fail(f"left out under LLMS_TEST_STRICT=1: {why}")
    pytest.skip(why)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recorded traffic and scorers beside the repository."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        leave_out(f"no recorded traffic: {folder / 'data'} is not there")
    return folder


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Restore logging: a handler that a command sets up must not outlive the stream of its test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Count the left-out tests by reason, at the end of the output and in the file of LLMS_TEST_SUMMARY."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    lines = [f"  {n} x {why}" for why, n in sorted(reasons.items())]
    terminalreporter.section("what was left out")
    terminalreporter.line(f"left out: {sum(reasons.values()) or 'nothing'}")
    for line in lines:
        terminalreporter.line(line)
    if summary := os.environ.get("LLMS_TEST_SUMMARY"):
        with Path(summary).open("a") as file:  # parts of the tests share it
            file.writelines(f"{line}\n" for line in lines)
