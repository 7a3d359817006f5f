"""Make the report's plots; Bokeh draws them in the browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from bokeh.document import Document
from bokeh.embed import components
from bokeh.models import HoverTool, NumeralTickFormatter
from bokeh.palettes import Colorblind8
from bokeh.plotting import figure

from metabench.analysis.costs import Cost, latency, mean_over_seeds, memory
from metabench.analysis.standings import Row, Table
from metabench.analysis.stats import MeanInterval

#: Number of best methods of a table that are plotted, compared pairwise and shown with their worst episode.
METHODS = 8
#: Costs that the metric which ranks is plotted against: axis label, and value of a record.
_COSTS: tuple[tuple[str, Cost], ...] = (
    ("training seconds", lambda record: record.train.seconds if record.train else None),
    ("milliseconds an episode (median)", latency),
    ("peak memory, MiB", memory),
)
#: Limits of a training that the metric which ranks is plotted against: name of the parameter, and axis label.
_LIMITS = (("train.classes", "training classes"), ("train.images_per_class", "training images of each class"))
#: Okabe & Ito's colours for the colour-blind, without black and yellow, which vanish on a dark or light page.
_COLOURS = [colour for colour in Colorblind8 if colour not in ("#000000", "#F0E442")]
_DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot")
_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "x", "asterisk")


@dataclass(frozen=True)
class Plot:
    """A plot's caption and HTML."""

    caption: str
    html: str


def draw(tables: Sequence[Table]) -> tuple[str, list[list[Plot]]]:
    """Return the script for all plots, and each table's plots."""
    captions: list[str] = []
    figures: list[figure] = []
    counts: list[int] = []
    for table in tables:
        drawn = _plots([row for row in table.rows if row.primary])
        counts.append(len(drawn))
        for caption, plot in drawn:
            captions.append(caption)
            figures.append(plot)
    if not figures:
        return "", [[] for _ in tables]
    document = Document()
    with document.models.freeze():  # otherwise Bokeh searches all models again for each plot
        for plot in figures:
            document.add_root(plot)
    script, divs = components(figures)
    plots = iter(Plot(caption, html) for caption, html in zip(captions, divs, strict=True))
    return script, [[next(plots) for _ in range(count)] for count in counts]


def _plots(rows: Sequence[Row]) -> list[tuple[str, figure]]:
    """Return the captions and plots of a table."""
    if not rows:
        return []
    best, name = rows[:METHODS], rows[0].metric.title
    methods = f" of the best {METHODS} of {len(rows)} methods" if len(rows) > METHODS else ""
    plots = []
    for axis, cost in _COSTS:
        plot = _against_cost(rows, axis, cost)
        if plot is not None:
            plots.append(
                (
                    f"{name[0].upper()}{name[1:]}{methods} against {axis}; the line is the Pareto front of all methods",
                    plot,
                )
            )
    for limit, axis in _LIMITS:
        plot = _against_limit(rows, limit, axis)
        if plot is not None:
            plots.append((f"{name[0].upper()}{name[1:]} against {axis}, ± half its 95 % interval over episodes", plot))
    plots.append((f"Validation: {name}{methods} during training (first seed)", _learning_curves(best)))
    plots.append((f"Share of test episodes{methods} with at most this {name}", _distributions(best)))
    return plots


def _figure(x: str, y: str, x_axis_type: Literal["linear", "log"] = "linear") -> figure:
    plot = figure(
        height=320,
        sizing_mode="stretch_width",
        x_axis_label=x,
        y_axis_label=y,
        x_axis_type=x_axis_type,
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll=None,
        background_fill_color=None,
        border_fill_color=None,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    return plot


def _against_cost(rows: Sequence[Row], axis: str, cost: Cost) -> figure | None:
    points = [(x, row) for row in rows if (x := mean_over_seeds(row, cost))]
    if not points:
        return None
    metric = rows[0].metric
    plot = _figure(axis, metric.heading, x_axis_type="log")
    front = _pareto([(x, row.primary.mean * metric.scale) for x, row in points if row.primary], metric.sign)
    plot.step(
        [cost for cost, _ in front],
        [value for _, value in front],
        mode="after",
        line_dash="dashed",
        line_color="#8a8a94",
    )
    for i, (x, row) in enumerate(points[:METHODS]):
        if row.primary is None:
            continue
        y, half = row.primary.mean * metric.scale, row.primary.ci95 * metric.scale
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        plot.segment([x], [y - half], [x], [y + half], color=colour, legend_label=row.name)
        plot.scatter([x], [y], size=10, color=colour, marker=marker, legend_label=row.name, name=row.name)
    plot.add_tools(HoverTool(tooltips=[("method", "$name"), (axis, "$x"), (metric.heading, "$y")]))
    return _with_legend(plot)


def _pareto(points: Sequence[tuple[float, float]], sign: int) -> list[tuple[float, float]]:
    """Return the Pareto front of (cost, value) points, cheapest first; `sign` is 1 where high values are better."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * value > sign * front[-1][1]:
            front.append((cost, value))
    return front


def _against_limit(rows: Sequence[Row], limit: str, axis: str) -> figure | None:
    """Return the plot of the methods with several values of a limit, a line each; None without such methods."""
    methods: dict[str, dict[int, MeanInterval]] = {}
    for row in rows:
        if limit in row.params and row.primary:
            methods.setdefault(_without(limit, row.name), {})[row.params[limit]] = row.primary
    methods = {method: points for method, points in methods.items() if len(points) > 1}
    if not methods:
        return None
    metric = rows[0].metric
    plot = _figure(axis, metric.heading, x_axis_type="log")
    plot.xaxis.ticker = sorted({number for points in methods.values() for number in points})
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")  # the formatter of a logarithmic axis writes powers
    for i, (method, points) in enumerate(list(methods.items())[:METHODS]):
        x = sorted(points)
        y = [points[number].mean * metric.scale for number in x]
        half = [points[number].ci95 * metric.scale for number in x]
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        plot.segment(x, np.subtract(y, half), x, np.add(y, half), color=colour, legend_label=method)
        plot.scatter(x, y, size=8, color=colour, marker=marker, legend_label=method, name=method)
        _line(plot, i, method, [float(number) for number in x], y)
    plot.add_tools(HoverTool(tooltips=[("method", "$name"), (axis, "$x{0,0}"), (metric.heading, "$y")]))
    return _with_legend(plot)


def _without(limit: str, name: str) -> str:
    """Return the name of a method without the value of a limit in its brackets."""
    part = rf"{re.escape(limit)}=\d+"
    return re.sub(rf"\[{part}\]|(?<=\[){part},|,{part}(?=[,\]])", "", name)


def _learning_curves(rows: Sequence[Row]) -> figure:
    metric = rows[0].metric
    plot = _figure("training episodes, or images", metric.heading)
    for i, row in enumerate(rows):
        train = row.finished[0].train
        if train is None or not train.validation:
            continue
        x = [point.step * (train.episodes or train.images) / train.steps for point in train.validation]
        y = [point.value * metric.scale for point in train.validation]
        _line(plot, i, row.name, x, y)
        if len(x) == 1:  # a line of one point is invisible
            plot.scatter(x, y, color=_COLOURS[i % len(_COLOURS)], legend_label=row.name)
    plot.add_tools(HoverTool(tooltips=[("method", "$name"), ("episodes or images", "$x{0,0}"), (metric.heading, "$y")]))
    return _with_legend(plot)


def _distributions(rows: Sequence[Row]) -> figure:
    metric = rows[0].metric
    plot = _figure(f"{metric.title} of an episode, {metric.unit}".rstrip(", "), "share of the episodes")
    for i, row in enumerate(rows):
        if row.values is None:
            continue
        values, counts = np.unique(np.round(row.values * metric.scale, 3), return_counts=True)
        share = np.cumsum(counts) / counts.sum()
        # The line starts at 0 below the lowest value and ends at 1 at the right border: one value makes a line, too.
        border = values[-1] if metric.highest is None else metric.highest * metric.scale
        x, y = [values[0], *values, border], [0.0, *share, 1.0]
        _line(plot, i, row.name, list(np.repeat(x, 2)[1:]), list(np.repeat(y, 2)[:-1]))
    plot.add_tools(HoverTool(tooltips=[("method", "$name"), (metric.heading, "$x"), ("share", "$y")]))
    return _with_legend(plot)


def _line(plot: figure, i: int, name: str, x: list[float], y: list[float]) -> None:
    """Draw the i-th method's line with its colour and dashes."""
    colour, dash = _COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)]
    plot.line(x, y, color=colour, line_dash=dash, line_width=2, legend_label=name, name=name)


def _with_legend(plot: figure) -> figure:
    """Put a legend below the plot; clicks hide methods."""
    for legend in plot.legend:
        legend.update(click_policy="hide", orientation="horizontal", ncols=3, label_text_font_size="9pt", padding=4)
        plot.add_layout(legend, "below")
    return plot
