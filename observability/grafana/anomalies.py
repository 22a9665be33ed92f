"""Anomalies and episodes: what is open, what was, and what it was about."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from observability.grafana.parts import ALL, board, choice, sql_chart, sql_table

LATEST = """
    SELECT *, row_number() OVER (PARTITION BY episode_id ORDER BY at DESC, sequence DESC) AS newest
    FROM llm_alerts WHERE $__timeFilter(at) AND severity IN ($severity)
"""


def counted(what: str) -> str:
    """How many episodes began, in steps of time, a line for each value."""
    return f"""
        SELECT date_bin(INTERVAL '10 minutes', at) AS time, {what} AS metric, count(*) AS value
        FROM llm_alerts WHERE $__timeFilter(at) AND status = 'firing' AND severity IN ($severity)
        GROUP BY 1, 2 ORDER BY 1, 2
    """


def dashboard() -> build.Dashboard:
    """The dashboard."""
    severities = ["low", "medium", "high", "critical"]
    made = board("sentinel-anomalies", "Anomalies and episodes", "What the flow has found, and what is still open.")
    made = made.with_variable(
        choice("severity", "severity", severities, ALL).multi(multi=True).include_all(include_all=True)
    )
    panels = (
        sql_table(
            "Open now",
            f"""
            SELECT since, severity, dimension_set, series, metric, observed, expected, unit, text
            FROM ({LATEST}) WHERE newest = 1 AND status <> 'resolved' ORDER BY since DESC LIMIT 200
            """,
            "By the last transition in the time shown: one that began before it and has not changed is not here.",
        ),
        sql_chart("Episodes that began, by severity", "none", counted("severity")),
        sql_chart("Episodes that began, by metric", "none", counted("metric")),
        sql_chart("Episodes that began, by kind", "none", counted("kind")),
        sql_chart("Episodes that began, by what they are of", "none", counted("dimension_set")),
        sql_table(
            "Episodes",
            f"""
            SELECT since, until, status, reason, severity, kind, series, metric, score, text, episode_id
            FROM ({LATEST}) WHERE newest = 1 ORDER BY since DESC LIMIT 500
            """,
            "One line each, as its last transition tells it.",
            14,
        ),
        sql_table(
            "Transitions",
            """
            SELECT at, status, severity, series, metric, observed, expected, lower, upper, score, detectors, text
            FROM llm_alerts WHERE $__timeFilter(at) AND severity IN ($severity) ORDER BY at DESC LIMIT 500
            """,
            height=14,
        ),
    )
    for panel in panels:
        made = made.with_panel(panel)
    return made
