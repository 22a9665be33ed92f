"""Our figures equal those of the scorer that comes with the recorded traffic, and each definition holds on its own."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.backtest import scoring
from flows.backtest.scoring import Extent
from operators.errors import ConfigError
from operators.model import SECOND, SEVERITIES

START = 1_741_046_400  # 2025-03-04T00:00:00Z
KINDS = ("latency_spike", "latency_drift", "error_burst", "traffic_surge")
METRICS = ("latency", "ttft", "error_ratio", "requests", "cost", "latency_p95", "quality.mean", "tokens_per_second")


def rfc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def alert(episode: str, at: float, status: str = "firing", **fields: Any) -> dict[str, Any]:
    return {
        "alert_id": f"{episode}-{status}", "episode_id": episode, "status": status, "severity": "high",
        "series": {"service": "chat", "model": "m"}, "metric": "latency", "kind": "latency_spike",
        "at": rfc(START + at), "since": rfc(START + at - 20), "until": None, **fields,
    }  # fmt: skip


def label(start: float, end: float, **fields: Any) -> dict[str, Any]:
    return {
        "anomaly_id": "A1", "type": "latency_spike", "entity": {"service": "chat"}, "metric": "latency_ms",
        "secondary_metrics": ["cost_usd"], "start": rfc(START + start), "end": rfc(START + end), **fields,
    }  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def random_case(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Alerts of episodes, many of them near a label, and labels one after the other."""
    rng = random.Random(seed)
    labels, alerts, at = [], [], 0.0
    for number in range(12):
        at += rng.uniform(600, 5_000)
        end = at + rng.uniform(200, 3_000)
        entity = rng.choice([{"service": "chat"}, {"model": "m"}, {"tenant": "t1"}, {"service": "chat", "model": "m"}])
        metric, other = rng.sample(["latency_ms", "error_rate", "request_count", "cost_usd"], 2)
        fields = {"type": rng.choice(KINDS), "entity": entity, "metric": metric, "secondary_metrics": [other]}
        labels.append(label(at, end, anomaly_id=f"A{number}", **fields))
        for episode in range(rng.randrange(5)):
            begin = at + rng.uniform(-2_000, 4_000)
            name = f"e{number}-{episode}"
            series = rng.choice([{"service": "chat", "model": "m"}, {"service": "search"}, {"tenant": "t1"}])
            same: dict[str, Any] = {"series": series, "severity": rng.choice(SEVERITIES)}
            alerts.append(alert(name, begin, metric=rng.choice(METRICS), **same))
            if rng.random() < 0.3:
                alerts.append(alert(name, begin + 60, "updated", metric=rng.choice(METRICS), **same))
            if rng.random() < 0.7:
                until = rng.choice([None, rfc(START + begin + 2_400)])
                alerts.append(alert(name, begin + 2_700, "resolved", until=until, **same))
        at = end
    alerts.append(alert("never-opened", 100, "resolved"))
    return alerts, labels


@pytest.mark.parametrize("seed", range(6))
def test_the_figures_are_those_of_the_scorer(seed: int, tmp_path: Path, shared: Path) -> None:
    alerts, labels = random_case(seed)
    lines, answers = write(tmp_path / "alerts.jsonl", alerts), write(tmp_path / "labels.jsonl", labels)
    events = tmp_path / "events.jsonl.gz"
    with gzip.open(events, "wt") as file:
        for at, service, tenant in ((0, "chat", "t1"), (9_000, "chat", None), (90_000, "search", "t1")):
            file.write(json.dumps({"timestamp": rfc(START + at), "service": service, "tenant": tenant}) + "\n")
    severity = SEVERITIES[seed % 3]
    command = [sys.executable, str(shared / "tools" / "score_alerts.py"), str(lines), str(answers), "--json"]
    command += ["--min-severity", severity, "--grace-s", "300", "--pane-s", "20"]
    extents: tuple[tuple[list[str], Extent | None], ...] = (
        ([], None),
        (["--events", str(events)], Extent(START * SECOND, (START + 90_000) * SECOND, 4)),
    )
    for options, extent in extents:
        said = json.loads(subprocess.run([*command, *options], capture_output=True, check=True).stdout)
        found = scoring.episodes(scoring.read_lines(lines, "alerts"), severity)
        ours = scoring.score(found, scoring.incidents(answers), extent, grace_s=300, pane_s=20)
        assert ours.figures["incidents"] == 12 and ours.figures["false"] and ours.figures["recall"]
        by_kind, theirs = ours.figures.pop("by_type"), said.pop("by_type")
        assert list(ours.figures) == list(said)
        assert ours.figures == pytest.approx(said, abs=1e-5)
        assert by_kind.keys() == theirs.keys()
        for kind, figures in theirs.items():
            assert by_kind[kind] == pytest.approx(figures, abs=1e-5)


def scored(alerts: list[dict[str, Any]], labels: list[dict[str, Any]], folder: Path) -> scoring.Score:
    answers = write(folder / "labels.jsonl", labels)
    return scoring.score(scoring.episodes(alerts), scoring.incidents(answers))


def test_no_alerts_and_no_labels_divide_by_nothing(tmp_path: Path) -> None:
    nothing = scored([], [], tmp_path)
    assert nothing.extent is None
    assert nothing.figures["recall"] is None and nothing.figures["precision"] is None
    silent = scored([], [label(0, 600)], tmp_path)
    assert silent.figures["recall"] == 0 and silent.figures["f1"] == 0 and silent.figures["median_delay_s"] is None


def test_an_episode_may_open_until_the_grace_is_over(tmp_path: Path) -> None:
    inside, outside = alert("a", 600 + scoring.GRACE_S), alert("b", 601 + scoring.GRACE_S)
    found = scored([inside, outside], [label(0, 600)], tmp_path)
    assert [e.id for e in found.false] == ["b"]
    assert found.outcomes[0].delay_s == 1_200


def test_an_earlier_episode_belongs_where_it_overlaps_more_than_half(tmp_path: Path) -> None:
    def known_before(until: float) -> scoring.Score:
        rows = [alert("a", -100), alert("a", until, "resolved", until=rfc(START + until))]
        return scored(rows, [label(0, 600)], tmp_path)

    assert not known_before(300).outcomes[0].found
    more = known_before(301).outcomes[0]
    assert more.found and more.delay_s == 0


def test_dimensions_that_both_name_must_not_differ(tmp_path: Path) -> None:
    elsewhere = alert("a", 60, series={"service": "search"})
    unrelated = alert("b", 60, series={"tenant": "t1"})
    found = scored([elsewhere, unrelated], [label(0, 600)], tmp_path)
    assert [e.id for e in found.false] == ["a"]
    assert found.outcomes[0].found and not found.outcomes[0].exact


def test_only_the_primary_metric_is_exact(tmp_path: Path) -> None:
    found = scored([alert("a", 60, metric="cost")], [label(0, 600)], tmp_path)
    assert found.outcomes[0].found and not found.outcomes[0].exact
    assert scored([alert("a", 60)], [label(0, 600)], tmp_path).outcomes[0].exact
    assert not scored([alert("a", 60, metric="quality")], [label(0, 600)], tmp_path).outcomes[0].found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json\n", "line 1"),
        ("[]\n", "line 1"),
        ('{"anomaly_id": "A"}\n', "label 1 is wrong"),
        (json.dumps(label(0, 1) | {"start": "yesterday"}), "label 1 is wrong"),
        (json.dumps(label(0, 1) | {"entity": "chat"}), "label 1 is wrong"),
    ],
)
def test_foreign_labels_are_refused_in_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=said) as told:
        scoring.incidents(tmp_path / "labels.jsonl")
    assert "\n" not in str(told.value) and "labels.jsonl" in str(told.value)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        scoring.incidents(tmp_path / "none.jsonl")
    whole = gzip.compress(json.dumps(label(0, 1)).encode() * 50)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(ConfigError, match="it is damaged"):
        scoring.incidents(tmp_path / "cut.jsonl.gz")


def test_a_line_that_is_no_alert_is_refused() -> None:
    with pytest.raises(ConfigError, match="alert 2 is wrong"):
        scoring.episodes([alert("a", 0), {"alert_id": "x"}])
