"""LLM overview: traffic, errors, latency with its expected band, tokens and cost, by service, model and tenant."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from observability.grafana.parts import board, choice, expected, found, prom_chart, sql_chart, sql_table

SERVICES = """
    FROM llm_panes
    WHERE dimension_set = 'service' AND width_s = $width AND service IN ($service) AND $__timeFilter(pane_start)
"""
MODELS = "FROM llm_panes WHERE dimension_set = 'model' AND width_s = $width AND $__timeFilter(pane_start)"
ONE = "dimension_set = 'service' AND service = '$one'"
SHOWN = "$__timeFilter(pane_start)"
COST = "cost_sum * 3600.0 / width_s"
_OF_TENANTS = "dimension_set = 'tenant' AND width_s = $width AND $__timeFilter(pane_start)"
TENANTS = f"""
    FROM llm_panes WHERE {_OF_TENANTS} AND tenant IN (
        SELECT tenant FROM llm_panes WHERE {_OF_TENANTS} GROUP BY tenant ORDER BY sum(requests) DESC LIMIT 10
    )
"""
_TOTALS = """
    sum(requests) AS "requests", sum(errors) * 1.0 / sum(requests) AS "error ratio",
    max(latency_p95) AS "worst p95 (ms)", sum(prompt_tokens_sum) AS "prompt tokens",
    sum(completion_tokens_sum) AS "completion tokens", sum(cost_sum) AS "USD"
"""


def by_service(value: str) -> str:
    """A line for each service."""
    return f"SELECT pane_start AS time, service AS metric, {value} AS value {SERVICES} ORDER BY 1, 2"


def of_one(values: str) -> str:
    """Lines of one service."""
    return f"SELECT pane_start AS time, {values} FROM llm_panes WHERE {ONE} AND width_s = $width AND {SHOWN} ORDER BY 1"


def totals(dimension: str) -> str:
    """The totals of each value of a dimension in the time shown, most requests first."""
    return f"""
        SELECT {dimension}, {_TOTALS}
        FROM llm_panes
        WHERE dimension_set = '{dimension}' AND width_s = $width AND $__timeFilter(pane_start)
        GROUP BY {dimension} ORDER BY 2 DESC LIMIT 50
    """


def dashboard() -> build.Dashboard:
    """The dashboard."""
    services = """
        SELECT DISTINCT service FROM llm_panes
        WHERE dimension_set = 'service' AND width_s = 60 AND $__timeFilter(pane_start) ORDER BY 1
    """
    made = board("sentinel-overview", "LLM overview", "The calls that services make to models, and their results.")
    made = made.with_variable(choice("width", "pane (s)", ["10", "60", "3600"], "60"))
    made = made.with_variable(found("service", "services", services, many=True))
    made = made.with_variable(found("one", "one service", services, many=False))
    panels = (
        sql_chart("Requests a second", "reqps", by_service("requests * 1.0 / width_s")),
        sql_chart("Share of calls that failed", "percentunit", by_service("error_ratio")),
        sql_chart(
            "Requests a minute of $one",
            "none",
            of_one('requests * 60.0 / width_s AS "requests"'),
            "The band is the range that detection expected.",
            expected("requests", ONE),
        ),
        sql_chart(
            "Latency of $one",
            "ms",
            of_one('latency_p50 AS "p50", latency_p95 AS "p95", latency_p99 AS "p99"'),
            "The band is the range that detection expected of a typical request. Requests that tell their output "
            "tokens have none: they are judged by their output speed.",
            expected("latency", ONE),
        ),
        sql_chart(
            "Output tokens a second of $one",
            "none",
            of_one('tokens_per_second_p50 AS "p50"'),
            "The band is the range that detection expected of a typical request.",
            expected("tokens_per_second", ONE),
        ),
        sql_chart("Latency, p95", "ms", by_service("latency_p95")),
        sql_chart("Time to first token, p95", "ms", by_service("ttft_p95")),
        sql_chart("Output tokens a second, p50", "none", by_service("tokens_per_second_p50")),
        sql_chart("Cost an hour", "currencyUSD", by_service(COST)),
        sql_chart(
            "Tokens a second",
            "none",
            by_service("(coalesce(prompt_tokens_sum, 0) + coalesce(completion_tokens_sum, 0)) / width_s"),
        ),
        sql_chart(
            "Requests a second by model",
            "reqps",
            f"SELECT pane_start AS time, model AS metric, requests * 1.0 / width_s AS value {MODELS} ORDER BY 1, 2",
        ),
        sql_chart(
            "Latency by model, p95",
            "ms",
            f"SELECT pane_start AS time, model AS metric, latency_p95 AS value {MODELS} ORDER BY 1, 2",
        ),
        sql_chart(
            "Share of calls that failed, by model",
            "percentunit",
            f"SELECT pane_start AS time, model AS metric, error_ratio AS value {MODELS} ORDER BY 1, 2",
        ),
        sql_chart(
            "Share of calls that failed, by tenant",
            "percentunit",
            f"SELECT pane_start AS time, tenant AS metric, error_ratio AS value {TENANTS} ORDER BY 1, 2",
            "The ten tenants with most requests in the time shown.",
        ),
        sql_chart(
            "Cost an hour by model",
            "currencyUSD",
            f"SELECT pane_start AS time, model AS metric, {COST} AS value {MODELS} ORDER BY 1, 2",
        ),
        sql_chart(
            "Cost an hour by tenant",
            "currencyUSD",
            f"SELECT pane_start AS time, tenant AS metric, {COST} AS value {TENANTS} ORDER BY 1, 2",
            "The ten tenants with most requests in the time shown.",
        ),
        prom_chart(
            "Error budget: burn rate",
            "none",
            ("service:sentinel_error_burn:rate1h", "{{service}}, 1 h"),
            ("service:sentinel_error_burn:rate6h", "{{service}}, 6 h"),
            about="1 uses the budget of 30 days up in 30 days.",
        ),
        prom_chart(
            "Cost budget: burn rate",
            "none",
            ("service:sentinel_cost_burn:rate1h", "{{service}}, 1 h"),
            ("service:sentinel_cost_burn:rate6h", "{{service}}, 6 h"),
            about="Empty if `objectives.cost_usd` is not set.",
        ),
        sql_table("Services", totals("service")),
        sql_table("Models", totals("model")),
        sql_table("Tenants", totals("tenant")),
    )
    for panel in panels:
        made = made.with_panel(panel)
    return made
