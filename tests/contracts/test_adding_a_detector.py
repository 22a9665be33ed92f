"""A new detector needs its file, its line in the registry and its test, and nothing else: a copy gets one here."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.contracts.trees import linked, run

NAME = "far_off"

DETECTOR = '''"""Distance of a pane's mean from a faded mean of the panes before it, in least changes."""

import numpy as np

from operators.detect.base import LEARNED, Traits, Verdicts
from operators.detect.context.rules import mean_rules
from operators.kernels.detect import EXPECTED, FIELDS, LOWER, OBSERVED, SCORE, SPAN, UPPER, WEIGHT


class FarOff:
    name = "far_off"
    traits = Traits(needs_warm_up=True, scale_free=False, shift_free=True, answers_step=True)

    def __init__(self, watch):
        self.cells = tuple(m.name for m in watch.metrics)
        self._watch = watch
        rules = mean_rules(watch)
        self._direction = rules.direction
        self._far = 2.0 * rules.least

    def state(self, slots):
        shape = (slots, len(self.cells))
        return {"mean": np.zeros(shape), LEARNED: np.zeros(shape, np.int64)}

    def _means(self, block):
        used, columns = block.used, self._watch.own_columns
        count, total = block.now[:used, 2:columns:2], block.now[:used, 3:columns:2]
        live = (block.born[:used, None] >= 0) & (block.born[:used, None] <= block.pane) & (count > 0)
        return count, total / np.maximum(count, 1.0), live

    def score(self, state, block):
        count, mean, live = self._means(block)
        usual = state["mean"][: block.used]
        away = (mean - usual) / self._far
        wrong = np.where(self._direction == 0, np.abs(away), np.maximum(self._direction * away, 0.0))
        table = np.zeros((*mean.shape, FIELDS))
        table[:, :, SCORE] = wrong / (1.0 + wrong)
        table[:, :, OBSERVED], table[:, :, EXPECTED] = mean, usual
        table[:, :, LOWER], table[:, :, UPPER] = usual - self._far, usual + self._far
        table[:, :, SPAN], table[:, :, WEIGHT] = 1.0, count
        table[~live | (state[LEARNED][: block.used] < self._watch.config.warm_up_panes)] = 0.0
        return Verdicts(table)

    def learn(self, state, block, excluded):
        _, mean, live = self._means(block)
        taken = live & ~excluded[: block.used, : len(self.cells)]
        usual, learned = state["mean"][: block.used], state[LEARNED][: block.used]
        rate = np.maximum(1.0 / (learned + 1), 1.0 - self._watch.keep)
        usual += np.where(taken, rate * (mean - usual), 0.0)
        learned += taken
'''

ITS_TEST = """from operators.config import DetectConfig
from operators.detect.base import Watch
from operators.detect.detectors.far_off import FarOff


def test_it_knows_nothing_at_first() -> None:
    assert not FarOff(Watch(DetectConfig(), 10)).state(1)["mean"].any()
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with one more detector."""
    tree = linked(tmp_path_factory.mktemp("tree"), "operators/detect", "tests/operators/detect")
    detect = tree / "operators" / "detect"
    (detect / "detectors" / f"{NAME}.py").write_text(DETECTOR)
    (tree / "tests" / "operators" / "detect" / "detectors" / f"test_{NAME}.py").write_text(ITS_TEST)
    registry = (detect / "registry.py").read_text()
    first, entries = "from operators.detect.detectors.", "] = {\n"
    assert first in registry
    assert registry.count(entries) == 1
    registry = registry.replace(first, f"from operators.detect.detectors.{NAME} import FarOff\n{first}", 1)
    (detect / "registry.py").write_text(registry.replace(entries, f"{entries}    FarOff.name: FarOff,\n"))
    return tree


def test_the_laws_and_its_own_test_meet_it(tree: Path) -> None:
    laws = ("tests/contracts/test_detectors.py", "tests/operators/detect/test_registry.py")
    its_test = f"tests/operators/detect/detectors/test_{NAME}.py"
    said = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", *laws, its_test, "-k", NAME)
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) > sum((ROOT / path).read_text().count("\n@detectors\n") for path in laws), said


def test_the_references_of_settings_and_detectors_name_it(tree: Path) -> None:
    documents = "example, reference, detectors"
    code = f"from flows.settings.reference import {documents}\nprint(*(d() for d in ({documents})), sep='\\f')"
    example, reference, detectors = run(tree, "-c", code).split("\f")
    for document in (example, reference):
        assert f'one of "{NAME}", ' in document
    assert f"[`{NAME}`](#{NAME}) | metrics | none | deviation | yes |" in detectors
    assert f"## {NAME}\n\nDistance of a pane's mean from a faded mean" in detectors


def test_settings_choose_it_and_its_alerts_name_it(tree: Path) -> None:
    draw, slow = random.Random(4), range(900, 1200)
    events = [
        {
            "timestamp": 1_767_225_600 + at,
            "service": "chat",
            "model": "m",
            "latency_ms": (10 if at in slow else 1) * draw.lognormvariate(6, 0.2),
        }
        for at in range(1500)
    ]
    (tree / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (tree / "chosen.toml").write_text(f'[detect]\ndetectors.latency = ["{NAME}"]\nvotes.latency.weights.{NAME} = 0.9\n')
    run(tree, "-m", "flows.backtest", "events.jsonl", "--config", "chosen.toml", "--alerts", "alerts.jsonl")
    alerts = [json.loads(line) for line in (tree / "alerts.jsonl").read_text().splitlines()]
    first = next(alert for alert in alerts if alert["metric"] == "latency")
    assert (first["status"], first["kind"], first["detectors"]) == ("firing", "latency_spike", [NAME])
    assert first["learned_panes"] > 48
