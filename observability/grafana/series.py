"""One series in depth: a metric with its expected band, alerts, breakdowns, and the requests that show a deviation."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from observability.grafana.parts import board, choice, expected, found, sql_chart, sql_table
from operators.metrics import METRICS

SERIES = "dimension_set = '$set' AND series = '$series'"
ROWS = f"FROM llm_panes WHERE {SERIES} AND width_s = $width AND $__timeFilter(pane_start)"
ALERTS = f"FROM llm_alerts WHERE {SERIES} AND $__timeFilter(at)"


def dashboard() -> build.Dashboard:
    """The dashboard."""
    sets = "SELECT DISTINCT dimension_set FROM llm_panes WHERE width_s = 60 AND $__timeFilter(pane_start) ORDER BY 1"
    series = """
        SELECT DISTINCT series FROM llm_panes
        WHERE dimension_set = '$set' AND width_s = 60 AND $__timeFilter(pane_start) ORDER BY 1
    """
    made = board("sentinel-series", "One series in depth", "All stored data of one series.")
    made = made.with_variable(choice("width", "pane (s)", ["10", "60", "3600"], "60"))
    made = made.with_variable(choice("metric", "metric", [m.name for m in METRICS], METRICS[0].name))
    made = made.with_variable(found("set", "dimensions", sets, many=False))
    made = made.with_variable(found("series", "series", series, many=False))
    panels = (
        sql_chart(
            "$metric: quantiles, with the expected band",
            "none",
            f"""
            SELECT pane_start AS time, ${{metric:raw}}_p50 AS "p50", ${{metric:raw}}_p95 AS "p95",
                ${{metric:raw}}_p99 AS "p99"
            {ROWS} ORDER BY 1
            """,
            "The band is the range that detection expected of a typical request; a metric that is not judged has none.",
            expected("${metric:raw}", SERIES),
        ),
        sql_chart(
            "$metric: as alerts saw it",
            "none",
            f"""
            SELECT at AS time, observed AS "observed", expected AS "expected", lower AS "lower", upper AS "upper"
            {ALERTS} AND metric = '$metric' ORDER BY 1
            """,
            "The values that detection observed and expected at each transition of an episode, and none in between.",
        ),
        sql_chart(
            "$metric: least, mean, most",
            "none",
            f"""
            SELECT pane_start AS time, ${{metric:raw}}_min AS "least",
                ${{metric:raw}}_sum / nullif(${{metric:raw}}_count, 0) AS "mean", ${{metric:raw}}_max AS "most"
            {ROWS} ORDER BY 1
            """,
        ),
        sql_chart(
            "Requests a minute, with the expected band",
            "none",
            f'SELECT pane_start AS time, requests * 60.0 / width_s AS "requests" {ROWS} ORDER BY 1',
            band=expected("requests", SERIES),
        ),
        sql_chart(
            "Share of calls that failed, with the expected band",
            "percentunit",
            f'SELECT pane_start AS time, error_ratio AS "error ratio" {ROWS} ORDER BY 1',
            band=expected("error_ratio", SERIES),
        ),
        sql_chart("Score of its alerts", "none", f"SELECT at AS time, metric, score AS value {ALERTS} ORDER BY 1, 2"),
        sql_table(
            "Alerts",
            f"""
            SELECT at, status, severity, metric, observed, expected, score, detectors, contributors, text
            {ALERTS} ORDER BY at DESC LIMIT 200
            """,
        ),
        sql_table(
            "Breakdowns of its requests, and the worst requests",
            f"SELECT pane_start, requests, errors, breakdown, evidence {ROWS} ORDER BY pane_start DESC LIMIT 100",
            "The stored JSON: counts by label and value, and the requests that stood out, with their traces.",
            14,
        ),
    )
    for panel in panels:
        made = made.with_panel(panel)
    return made
