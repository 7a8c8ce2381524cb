"""The few kinds of panel that the dashboards are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.dashboard import DataSourceRef

JOB: Final = 'job=~"$job"'
RATE: Final = "[$__rate_interval]"
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
_GRAPH_SPAN, _NUMBER_SPAN = 8, 4
_GRAPH_HEIGHT, _NUMBER_HEIGHT = 8, 4


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        queries: PromQL by legend; a legend may hold `{{label}}`.
        unit: in Grafana's names, such as `s`, `reqps`, `percentunit`.
        single: the last value as a number instead of a graph.
        says: what to read off it.
    """

    title: str
    queries: dict[str, str]
    says: str
    unit: str = "short"
    single: bool = False


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """One dashboard: rows of panels under headings."""

    uid: str
    title: str
    rows: dict[str, Sequence[Panel]] = field(default_factory=dict)


def build(page: Dashboard) -> dashboard.Dashboard:
    """The dashboard in Grafana's own form, with a choice of data source and of job."""
    built = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .tags(["ferserve"])
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("utc")
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source"))
        .with_variable(
            dashboard.QueryVariable("job")
            .label("Deployment")
            .datasource(_SOURCE)
            .query("label_values(ferserve_build_info, job)")
            .include_all(include_all=True)
            .multi(multi=True)
        )
    )
    for heading, panels in page.rows.items():
        built = built.with_row(dashboard.Row(heading))
        for panel in panels:
            built = built.with_panel(_number(panel) if panel.single else _graph(panel))
    return built


def _graph(panel: Panel) -> timeseries.Panel:
    built = timeseries.Panel().title(panel.title).description(panel.says).datasource(_SOURCE).unit(panel.unit)
    built = built.min(0).span(_GRAPH_SPAN).height(_GRAPH_HEIGHT)
    for legend, query in panel.queries.items():
        built = built.with_target(prometheus.Dataquery().expr(query).legend_format(legend).range())
    return built


def _number(panel: Panel) -> stat.Panel:
    built = stat.Panel().title(panel.title).description(panel.says).datasource(_SOURCE).unit(panel.unit)
    built = built.span(_NUMBER_SPAN).height(_NUMBER_HEIGHT)
    for legend, query in panel.queries.items():
        built = built.with_target(prometheus.Dataquery().expr(query).legend_format(legend).instant())
    return built
