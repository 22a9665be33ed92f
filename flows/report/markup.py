"""The page of a run as one HTML file with style and plots inside: it needs no network and no script.

The markup is in `templates/`. All values that a template prints lose their control characters, are cut and are
escaped; the page's policy forbids scripts and requests in any case.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.report import plot, wording
from flows.report.curve import legend, picture
from flows.report.model import Episode, rank
from flows.report.page import Page
from flows.report.read import short_path
from flows.report.timeline import FOLDED, LANES, timeline
from flows.report.values import AFTER, BEFORE, LONGEST, Chart, end_of
from operators.metrics import ERROR_RATIO
from operators.text import printable
from operators.units import digits, duration, moment, readable

PAGE_FILE: Final = "report.html"
LISTED: Final = 1_000
"""The most episodes that are listed without a chart."""
ALERTS: Final = 30
"""The most alerts in the table of an episode."""
TEXT: Final = 300
"""The most characters of a value that a template prints."""
SENTENCE: Final = 2_000
"""The most characters of a sentence or a command."""
_TEMPLATES: Final = Path(__file__).with_name("templates")


def render_page(page: Page) -> str:
    """The page as HTML."""
    incidents: dict[str, list[Episode]] = {}
    for e in page.report.episodes:
        incidents.setdefault(e.group_id, []).append(e)
    return _ENVIRONMENT.get_template("page.html.jinja").render(
        page=page,
        facts=[*wording.summary(page.report), *page.facts],
        timeline=timeline(page.report, page.traffic, page.last, page.labels),
        incidents=incidents,
    )


def write_page(target: Path, page: Page) -> str | None:
    """Write the whole page or nothing; returns None, or a sentence that says why it could not be written."""
    partial = target.with_name(f"{target.name}.tmp")
    try:
        partial.write_text(render_page(page), "utf-8")
        partial.replace(target)
    except OSError as e:
        return f"the page {short_path(target)} cannot be written: {e.strerror}; name another file with --html"
    return None


def _printed(value: object) -> object:
    """The value as a template prints it, before it is escaped: markup unchanged, other text made printable and cut."""
    if isinstance(value, Markup):
        return value
    text = printable(value)
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


def _sentence(text: str) -> Markup:
    """A longer text as HTML, cut at `SENTENCE` characters."""
    return Markup.escape(printable(text)[:SENTENCE])


def _anchor(episode: Episode) -> str:
    """The anchor of the episode on the page: `e-` and its id."""
    return f"e-{quote(episode.episode_id, safe='', errors='surrogatepass')}"


def _clock(time: int, episode: Episode) -> str:
    """The time of day; with the date if that is not the one on which the episode began."""
    shown, begun = moment(time), moment(episode.since)
    return shown[11:] if shown[:10] == begun[:10] else shown


def _value(value: float | None, episode: Episode) -> str:
    """A value of the episode's metric."""
    return readable(episode.metric, episode.unit, value)


def _figure(value: object) -> str:
    """A number as text; "" if the value is no number."""
    return digits(value) if isinstance(value, int | float) else ""


def _goes_on(chart: Chart, last: int) -> bool:
    """Whether an episode continues after the chart's end."""
    return any(end_of(e, last) > chart.end for e in chart.episodes)


def _worst(chart: Chart) -> Episode:
    """The episode that the chart is listed by."""
    return min(chart.episodes, key=lambda e: (rank(e.severity), e.since))


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "anchor": _anchor, "clock": _clock, "coordinate": plot.percent, "factor": wording.factor, "figure": _figure,
        "goes_on": _goes_on, "learned": wording.learned, "moment": moment, "number": plot.number, "sentence": _sentence,
        "thousands": "{:,}".format, "value": _value, "what": wording.what, "when": lambda e: " ".join(wording.when(e)),
        "where": wording.where, "worst": _worst,
    }  # fmt: skip
    found.globals |= {
        "css": Markup((_TEMPLATES / "page.css").read_text("utf-8")),  # noqa: S704 - our own file
        "legend": legend, "picture": picture,
        "ALERTS": ALERTS, "ERROR_RATIO": ERROR_RATIO, "LANES": LANES + FOLDED, "LISTED": LISTED,
        "LONGEST": duration((BEFORE + LONGEST + AFTER) / 1000),
    }  # fmt: skip
    return found


_ENVIRONMENT: Final = _environment()
