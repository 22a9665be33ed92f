"""Anomalies and episodes: the open ones, the past ones, and their alerts."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from observability.grafana.parts import ALL, board, choice, sql_chart, sql_table
from operators.model import SEVERITIES

LATEST = """
    SELECT *, row_number() OVER (PARTITION BY episode_id ORDER BY at DESC, sequence DESC) AS newest
    FROM llm_alerts WHERE $__timeFilter(at) AND severity IN ($severity)
"""


def counted(what: str) -> str:
    """The number of episodes that began in each step of time, a line for each value."""
    return f"""
        SELECT date_bin(INTERVAL '10 minutes', at) AS time, {what} AS metric, count(*) AS value
        FROM llm_alerts WHERE $__timeFilter(at) AND status = 'firing' AND severity IN ($severity)
        GROUP BY 1, 2 ORDER BY 1, 2
    """


def dashboard() -> build.Dashboard:
    """The dashboard."""
    made = board("sentinel-anomalies", "Anomalies and episodes", "The findings of the flow, open and past.")
    made = made.with_variable(
        choice("severity", "severity", list(SEVERITIES), ALL).multi(multi=True).include_all(include_all=True)
    )
    panels = (
        sql_table(
            "Open now",
            f"""
            SELECT since, severity, dimension_set, series, metric, observed, expected, unit, text
            FROM ({LATEST}) WHERE newest = 1 AND status <> 'resolved' ORDER BY since DESC LIMIT 200
            """,
            "By the last transition in the time shown; an episode without a transition in that time is missing.",
        ),
        sql_chart("Episodes that began, by severity", "none", counted("severity")),
        sql_chart("Episodes that began, by metric", "none", counted("metric")),
        sql_chart("Episodes that began, by kind", "none", counted("kind")),
        sql_chart("Episodes that began, by dimension set", "none", counted("dimension_set")),
        sql_table(
            "Episodes",
            f"""
            SELECT since, until, status, reason, severity, kind, series, metric, score, text, episode_id
            FROM ({LATEST}) WHERE newest = 1 ORDER BY since DESC LIMIT 500
            """,
            "One line for each episode, from its last transition.",
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
