"""Documents made from the code: an example settings file, and the references of settings, metrics and detectors."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from flows.settings.model import CONFIG_VARIABLE, DEFAULT_FILE, PREFIX, Settings
from flows.settings.schema import (
    Key,
    Setting,
    allowed,
    annotation_at,
    dotted,
    section,
    setting_at,
    settings_of,
    values_of,
)
from operators.detect import registry
from operators.detect.base import CELLS, METRIC_CELLS
from operators.observe.instruments import INSTRUMENTS, LABELS, PROCESS

_HEAD: Final = f"""# Settings

<!-- Made by `python -m flows.check --reference` (`make docs`) from the models; do not edit. -->

Later layers win: the defaults below, then the TOML file that `{CONFIG_VARIABLE}` names (`{DEFAULT_FILE}` in the working
directory if it names none), then variables (in which lists and tables are JSON), then `--set key=value` of
`flows.run`, `flows.check` and `flows.backtest`.
`python -m flows.check` checks the settings, `python -m flows.check --explain` shows each value and its origin, and
`python -m flows.check --connect` asks the neighbours too. Wrong settings end the start with exit code 78.
[Changing settings](changing-settings.md) tells the effect of a change on a store that lives.

A variable that begins with `{PREFIX}` must name a setting if its name has `__`, or is that of a setting or a section.
Others, such as those that Kubernetes makes for services named `sentinel-...`, are passed over.
"""


def _tables() -> Iterator[tuple[Key, str, list[tuple[Key, Setting | None, object]]]]:
    """Each table of the file: its key, its description, and its settings with their defaults."""
    values = dict(values_of(Settings()))
    keys = [s.key for s in settings_of(Settings)]
    every = [k for s in keys for k in ([v for v in values if v[: len(s)] == s] or [s])]
    tables: dict[Key, list[Key]] = {}
    for key in every:
        tables.setdefault(key[:-1], []).append(key)
    for table, inside in tables.items():
        model = section(annotation_at(Settings, table))
        about = (model.__doc__ or "").split("\n")[0] if model else ""
        yield table, about, [(key, setting_at(Settings, key), values.get(key)) for key in inside]


def example() -> str:
    """A settings file with every setting at its default, commented out."""
    lines = [
        "# Every setting of LLM-Sentinel, with its default. Copy those that you change into your own file and name it",
        f"# in {CONFIG_VARIABLE}, or call it {DEFAULT_FILE}. `python -m flows.check` says whether it is right,",
        "# `python -m flows.check --example` prints this file.",
    ]
    for table, about, inside in _tables():
        lines += ["", f"[{dotted(table)}]", *([f"# {about}"] if about else [])]
        for key, setting, default in inside:
            lines.append("")
            lines.extend(f"# {line}" for line in ([allowed(setting)] if setting else []))
            lines.append(f"#{dotted(key[-1:])} = {_toml(default)}".rstrip())
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The reference of all settings, in Markdown."""
    lines = [_HEAD]
    for table, about, inside in _tables():
        lines += [f"## `[{dotted(table)}]`", "", *([about, ""] if about else [])]
        lines += ["| setting | default | takes | variable |", "|---|---|---|---|"]
        for key, setting, default in inside:
            text = _toml(default)
            cells = [
                f"`{dotted(key)}`",
                f"`{text}`" if text else "not set",
                allowed(setting) if setting else "",
                f"`{PREFIX}{'__'.join(key).upper()}`",
            ]
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


_METRICS_HEAD: Final = """# Metrics

<!-- Made by `python -m flows.check --metrics` (`make docs`) from `operators/observe/instruments.py`; do not edit. -->

If `metrics.port` is set, each process serves its own metrics at `/metrics`, so sum over processes. The listener has
no authentication and binds loopback unless `metrics.host` is set.

Counters that come from snapshots go on over crashes: `sentinel_records_total`, `sentinel_events_total` and the others
with the label `partition`, and `sentinel_series_overflow_requests_total`. All others begin at 0 with the process, and
count records again that it reads again after a crash. The sum of `sentinel_events_total` over `outcome` is every event
that ever came in: nothing is lost in silence.

The [runbook](runbook.md) has the rules for Prometheus, and [dashboards](dashboards.md) show the metrics.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def metrics() -> str:
    """The reference of all metrics, in Markdown."""
    rows = [
        f"| `{i.exposed}` | {i.kind} | {', '.join(f'`{label}`' for label in i.labels) or 'none'} | {i.help} |"
        for i in INSTRUMENTS
    ]
    lines = [
        *rows,
        "",
        "Query a histogram by its name with `_bucket`, `_sum` and `_count` after it.",
        "",
        f"The Prometheus client adds, on Linux, those of the process: {', '.join(f'`{name}`' for name in PROCESS)}.",
        "",
        "## Bounds of the labels",
        "",
        "| label | values |",
        "|---|---|",
        *(f"| `{label}` | {bound} |" for label, bound in LABELS.items()),
    ]
    return _METRICS_HEAD + "\n".join(lines) + "\n"


_DETECTORS_HEAD: Final = """# Detectors

<!-- Made by `python -m flows.check --detectors` (`make docs`) from `operators/detect/registry.py`; do not edit. -->

`detect.detectors.<metric>` names the detectors that judge a metric; by default they are those that the table says.
[Detection](detection.md) says how their verdicts become alerts.

A finding is a `deviation` of a horizon from the usual, an `outlier` (one single request; the alert's kind is
`<metric>_outlier`), or a broken `limit` (`<metric>_limit`). A detector that needs a warm-up is calibrated. The prior
is the number of independent horizons that its own tail weighs as much as.

| detector | judges | by default | finds | warm-up | prior |
|---|---|---|---|---|---|
"""


def detectors() -> str:
    """The reference of all detectors, in Markdown: their traits, and the docstrings of their modules."""
    rows, sections = [], []
    for name, detector in registry.DETECTORS.items():
        traits = detector.traits
        default = "where `detect.limits` has one" if traits.finds == "limit" else _cells(traits.votes_on)
        warm_up = ("yes", f"{traits.prior:,.0f}") if traits.needs_warm_up else ("no", "")
        row = (f"[`{name}`](#{name})", _cells(traits.judges), default, traits.finds, *warm_up)
        rows.append(f"| {' | '.join(row)} |")
        about = (sys.modules[detector.__module__].__doc__ or "").strip()
        sections += ["", f"## {name}", "", about]
    return _DETECTORS_HEAD + "\n".join([*rows, *sections]) + "\n"


def _cells(cells: Sequence[str]) -> str:
    for every, what in ((CELLS, "all"), (METRIC_CELLS, "metrics"), ((), "none")):
        if tuple(cells) == every:
            return what
    return ", ".join(f"`{cell}`" for cell in cells)


def _toml(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return "{}"
    return json.dumps(value, default=str)
