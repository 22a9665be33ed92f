"""The parts that all dashboards are made of: data sources, queries, panels, variables."""

from __future__ import annotations

from typing import Final, Literal

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode

GREPTIME: Final = model.DataSourceRef("grafana-postgresql-datasource", "greptimedb")
PROMETHEUS: Final = model.DataSourceRef("prometheus", "prometheus")

ALL: Final = "$__all"
"""Grafana's name for all values of a variable."""

FROM: Final = "expected, from"
TO: Final = "expected, to"
"""The names of the two ends of the expected band."""

Chart = timeseries.Panel


class SqlQuery(Dataquery):
    """A query to the PostgreSQL data source, which is GreptimeDB."""

    def __init__(self, sql: str, form: Literal["time_series", "table"], ref: str = "A") -> None:
        self.sql = " ".join(sql.split())
        self.form = form
        self.ref = ref

    def to_json(self) -> dict[str, object]:
        """The query as JSON of a dashboard."""
        return {
            "refId": self.ref,
            "datasource": GREPTIME.to_json(),
            "format": self.form,
            "rawQuery": True,
            "editorMode": "code",
            "rawSql": self.sql,
        }


class _Made(Builder[Dataquery]):
    def __init__(self, query: SqlQuery) -> None:
        self._query = query

    def build(self) -> Dataquery:
        return self._query


def _chart(title: str, unit: str, about: str) -> Chart:
    return (
        Chart()
        .title(title)
        .description(about)
        .unit(unit)
        .span(12)
        .height(8)
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )


def sql_chart(title: str, unit: str, sql: str, about: str = "", band: str = "") -> Chart:
    """A chart over time: the query gives `time`, then either values, or `metric` (the line's name) and `value`.

    `band` is the query of `expected` whose band is drawn behind the values.
    """
    chart = _chart(title, unit, about).datasource(GREPTIME).with_target(_Made(SqlQuery(sql, "time_series")))
    if not band:
        return chart
    thin = model.DynamicConfigValue("custom.lineWidth", 0)
    filled = [model.DynamicConfigValue("custom.fillBelowTo", FROM), model.DynamicConfigValue("custom.fillOpacity", 15)]
    chart = chart.override_by_name(FROM, [thin]).override_by_name(TO, [thin, *filled])
    return chart.with_target(_Made(SqlQuery(band, "time_series", "B")))


def expected(metric: str, series: str) -> str:
    """The query of a metric's expected band, once a minute, for the one series that meets the condition `series`."""
    return f"""
        SELECT pane_start AS time, {metric}_expected AS "expected", {metric}_lower AS "{FROM}", {metric}_upper AS "{TO}"
        FROM llm_expectations WHERE {series} AND $__timeFilter(pane_start) ORDER BY 1
    """


def sql_table(title: str, sql: str, about: str = "", height: int = 10) -> table.Panel:
    """A table as wide as the dashboard."""
    panel = table.Panel().title(title).description(about).datasource(GREPTIME).span(24).height(height)
    return panel.with_target(_Made(SqlQuery(sql, "table")))


def prom_chart(title: str, unit: str, *queries: tuple[str, str], about: str = "") -> Chart:
    """A chart over time of queries, each one with the name of its lines."""
    panel = _chart(title, unit, about).datasource(PROMETHEUS)
    for i, (expr, legend) in enumerate(queries):
        query = prometheus.Dataquery().expr(" ".join(expr.split())).legend_format(legend).range().ref_id(chr(65 + i))
        panel = panel.with_target(query)
    return panel


def prom_stat(title: str, unit: str, expr: str, about: str = "") -> stat.Panel:
    """One number."""
    query = prometheus.Dataquery().expr(expr).instant().ref_id("A")
    panel = stat.Panel().title(title).description(about).datasource(PROMETHEUS).unit(unit)
    return panel.span(4).height(4).with_target(query)


def choice(name: str, label: str, values: list[str], chosen: str) -> build.CustomVariable:
    """A variable with fixed values."""
    current = model.VariableOption(text="All" if chosen == ALL else chosen, value=chosen, selected=True)
    return build.CustomVariable(name).label(label).values(",".join(values)).current(current)


def found(name: str, label: str, sql: str, *, many: bool) -> build.QueryVariable:
    """A variable whose values come from a query; with `many`, users may choose several or all."""
    variable = build.QueryVariable(name).label(label).datasource(GREPTIME).query(" ".join(sql.split()))
    variable = variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
    if many:
        all_of_them = model.VariableOption(text="All", value=ALL, selected=True)
        variable = variable.multi(multi=True).include_all(include_all=True).current(all_of_them)
    return variable


def board(uid: str, title: str, about: str) -> build.Dashboard:
    """An empty dashboard."""
    made = build.Dashboard(title).uid(uid).description(about).tags(["llm-sentinel"]).timezone("utc")
    made = made.time("now-6h", "now").refresh("30s").tooltip(model.DashboardCursorSync.CROSSHAIR).readonly()
    others = build.DashboardLink("LLM-Sentinel").type(model.DashboardLinkType.DASHBOARDS).tags(["llm-sentinel"])
    return made.link(others.as_dropdown(as_dropdown=True).keep_time(keep_time=True))
