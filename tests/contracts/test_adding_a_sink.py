"""A new sink needs its file, its section of the settings, its line in the registry and its test, and nothing else.

The sink here is a pager that notes each question, each opening and each page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.conftest import ROOT
from tests.contracts.trees import add_before, linked, run

FILE: Final = '''
"""A pager: a file with a line for each alert, each opening and each question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from connectors.base import Message, State
from connectors.config import PagerConfig
from operators.errors import DataError


class PagerWriter:
    """Pages for each alert."""

    def __init__(self, book: Path) -> None:
        self._book = book

    def write(self, items: Sequence[Message]) -> None:
        """Page for each item. Raises `DataError` for one that is not JSON."""
        for item in items:
            try:
                orjson.loads(item.value)
            except ValueError as e:
                raise DataError("bad_row", item.id) from e
            note(self._book, f"paged {item.id}")

    def snapshot(self) -> State | None:
        return None

    def close(self) -> None: ...


class PagerFactory:
    """A pager as a sink of alerts."""

    name = "pager"

    def __init__(self, config: PagerConfig) -> None:
        self._book = config.book

    def partitions(self) -> list[str]:
        return ["pager"]

    def route(self, key: str) -> int:
        return 0

    def open(self, partition: str, resume: State | None) -> PagerWriter:
        note(self._book, "opened")
        return PagerWriter(self._book)

    def ask(self) -> str:
        note(self._book, "asked")
        return "it would ring"


def note(book: Path, line: str) -> None:
    with book.open("a") as file:
        file.write(line + "\\n")
'''
SECTION: Final = '''class PagerConfig(Section):
    """A pager."""

    book: LocalPath = Field(description="File of its notes.")


'''
SETTING: Final = "    pager: PagerConfig | None = None\n"
LINE: Final = """    "pager": Sink(
        "best_effort", "alerts.pager", lambda s, _: s.alerts.pager and PagerFactory(s.alerts.pager), pages=True
    ),
"""
TEST: Final = '''
"""The pager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from connectors.config import PagerConfig
from connectors.pager import PagerFactory
from tests.connectors.samples import alert
from tests.contracts.systems import Alerts, Maker, after


class PagerSystem(Alerts):
    def __init__(self, folder: Path) -> None:
        self.book = folder / "book"
        self.book.touch()

    def factory(self) -> PagerFactory:
        return PagerFactory(PagerConfig(book=self.book))

    def contents(self) -> list[object]:
        return [line.removeprefix("paged ") for line in self.book.read_text().splitlines() if line.startswith("paged")]

    def trouble(self, tries: int) -> Callable[[], None]:
        return after(tries, lambda: None)


@contextmanager
def systems() -> Iterator[Maker]:
    """A maker of pagers for the laws of writers."""
    yield PagerSystem


def test_it_rings(tmp_path: Path) -> None:
    system = PagerSystem(tmp_path)
    system.factory().open("pager", None).write([alert(1)])
    assert system.contents() == ["alert-1"]
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the pager."""
    tree = linked(tmp_path_factory.mktemp("tree"), "connectors", "tests/connectors")
    (tree / "connectors" / "pager.py").write_text(FILE)
    config = tree / "connectors" / "config.py"
    add_before(config, "class AlertsConfig(Section):\n", SECTION)
    add_before(config, '    kafka: bool = Field(False, description="The topic kafka.alert_topic', SETTING)
    registry = tree / "connectors" / "registry.py"
    add_before(registry, "from connectors.simulator import", "from connectors.pager import PagerFactory\n")
    add_before(registry, '    "terminal": Sink(', LINE)
    (tree / "tests" / "connectors" / "test_pager.py").write_text(TEST)
    return tree


@pytest.fixture
def folder(tree: Path, tmp_path: Path) -> Path:
    """A folder whose settings ask for the pager."""
    golden = ROOT / "tests" / "golden" / "latency_spike"
    source = f'[source]\nkind = "files"\nfiles.paths = ["{golden / "events.jsonl"}"]'
    sinks = """
[alerts]
terminal = false
jsonl = "alerts.jsonl"
pager.book = "book"
[dead_letters]
jsonl = ""
[store]
kind = "none"
"""
    text = (golden / "settings.toml").read_text().replace("[source]", source)
    (tmp_path / "sentinel.toml").write_text(text + sinks)
    return tmp_path


def test_it_gets_the_alerts_of_the_flow(tree: Path, folder: Path) -> None:
    run(tree, "-m", "bytewax.run", "flows.main", folder=folder)
    alerts = [orjson.loads(line)["alert_id"] for line in (folder / "alerts.jsonl").read_bytes().splitlines()]
    assert alerts
    assert (folder / "book").read_text().splitlines() == ["opened", *(f"paged {alert}" for alert in alerts)]


def test_it_is_asked_whether_it_is_there(tree: Path, folder: Path) -> None:
    assert "ok      alerts, pager: it would ring\n" in run(tree, "-m", "flows.check", "--connect", folder=folder)
    assert (folder / "book").read_text() == "asked\n"


def test_a_backtest_neither_opens_nor_asks_it(tree: Path, folder: Path) -> None:
    events = str(ROOT / "tests" / "golden" / "latency_spike" / "events.jsonl")
    run(tree, "-m", "flows.backtest", events, "--alerts", "found.jsonl", folder=folder)
    assert (folder / "found.jsonl").read_bytes()
    assert not (folder / "book").exists()


def test_the_laws_meet_it(tree: Path) -> None:
    tests = ("tests/contracts/test_writers.py", "tests/connectors/test_pager.py")
    said = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "pager", *tests)
    assert "5 passed" in said
