"""Plot the metric that ranks against shots, ways and the amount of training data, a line for each method."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bokeh.models import FixedTicker, NumeralTickFormatter

from metabench.analysis.stats import MeanInterval
from metabench.analysis.tables import Row, Table
from metabench.records.measured import Declaration
from metabench.reporting.report.drawing import (
    METHODS,
    Plot,
    Styles,
    add_hover,
    add_line,
    add_points,
    capital,
    empty_figure,
    said,
)

#: Limits of a training: name of the parameter, and axis label.
_LIMITS = (("train.classes", "training classes"), ("train.images_per_class", "training images of each class"))


@dataclass(frozen=True)
class _Trend:
    """Points of each method, by name and number on the axis."""

    axis: str
    caption: str
    metric: Declaration
    methods: Mapping[str, Mapping[int, MeanInterval]]


def trend_names(tables: Sequence[Table]) -> list[str]:
    """Return the names of methods that appear in plots only: those without the value of a limit."""
    rows = [row for table in tables for row in table.rows]
    return [_without(limit, row.name) for row in rows for limit, _ in _LIMITS if limit in row.params]


def limit_plots(rows: Sequence[Row], styles: Styles) -> list[Plot]:
    """Return the plots of methods that a table has with several limits of their training data."""
    trends = []
    for limit, axis in _LIMITS:
        methods: dict[str, dict[int, MeanInterval]] = {}
        for row in rows:
            if limit in row.params and row.primary:
                methods.setdefault(_without(limit, row.name), {})[row.params[limit]] = row.primary
        if rows:
            trends.append(_Trend(axis, "", rows[0].metric, methods))
    return _drawn(trends, styles)


def shape_plots(tables: Sequence[Table], styles: Styles) -> list[Plot]:
    """Return the plots of methods that were tested with several shots, or several ways."""
    trends = []
    for axis, of, other in (("shots", "shot", "way"), ("ways", "way", "shot")):
        groups: dict[tuple[str, str, int], list[Table]] = {}
        for table in tables:
            if table.way and any(row.primary for row in table.rows):
                groups.setdefault((table.dataset, table.backbone, getattr(table, other)), []).append(table)
        for (dataset, backbone, number), members in groups.items():
            methods: dict[str, dict[int, MeanInterval]] = {}
            for table in members:
                for row in table.rows:
                    if row.primary:
                        methods.setdefault(row.name, {})[getattr(table, of)] = row.primary
            metric = next(row.metric for table in members for row in table.rows if row.primary)
            trends.append(_Trend(axis, f": {dataset} · {number}-{other} · {backbone}", metric, methods))
    return _drawn(trends, styles)


def _drawn(trends: Iterable[_Trend], styles: Styles) -> list[Plot]:
    return [plot for trend in trends if (plot := _plot(trend, styles))]


def _plot(trend: _Trend, styles: Styles) -> Plot | None:
    """Return the plot of methods with several points; None without such methods."""
    several = {name: points for name, points in trend.methods.items() if len(points) > 1}
    if not several:
        return None
    metric = trend.metric
    plot = empty_figure(trend.axis, metric.heading, x_axis_type="log")
    plot.xaxis.ticker = FixedTicker(ticks=sorted({number for points in several.values() for number in points}))
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")  # the formatter of a logarithmic axis writes powers
    words = []
    for name, points in list(several.items())[:METHODS]:
        x = sorted(points)
        y = [points[number].mean * metric.scale for number in x]
        add_points(plot, name, styles[name], x, y, [points[number].ci95 * metric.scale for number in x])
        add_line(plot, name, styles[name], x, y)
        words.append(f"{name}: " + ", ".join(f"{said(metric, points[number].mean)} at {number}" for number in x))
    add_hover(plot, trend.axis, metric.heading, "{0,0}")
    caption = f"{capital(metric.title)} against {trend.axis}, ± half its 95 % interval over episodes{trend.caption}"
    return Plot(caption, "; ".join(words), plot)


def _without(limit: str, name: str) -> str:
    """Return the name of a method without the value of a limit in its brackets."""
    part = rf"{re.escape(limit)}=\d+"
    return re.sub(rf"\[{part}\]|(?<=\[){part},|,{part}(?=[,\]])", "", name)
