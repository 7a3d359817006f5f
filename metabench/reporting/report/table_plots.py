"""Plot costs, learning curves, distributions and calibration of the methods of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metabench.analysis.costs import Cost, by_machine, compute_seconds, latency, memory
from metabench.analysis.tables import Row, Table
from metabench.records.record import Record
from metabench.records.runs import Runs
from metabench.reporting.figures import validated_by
from metabench.reporting.report.calibration_plots import reliability_plots
from metabench.reporting.report.curve_plots import curve_plots
from metabench.reporting.report.drawing import (
    GREY,
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
from metabench.reporting.report.trend_plots import limit_plots


def _seconds(record: Record) -> float | None:
    """Return the seconds of training and test."""
    return record.eval.seconds + (record.train.seconds if record.train else 0.0) if record.eval else None


def _costs(rows: Sequence[Row]) -> list[tuple[str, Cost]]:
    """Return the costs that the metric which ranks is plotted against: axis label, and value of a record."""
    known = all(compute_seconds(record) is not None for row in rows for record in row.records if record.eval)
    gpu = any(record.machine.kind == "cuda" for row in rows for record in row.records)
    # Records of earlier versions have no processor seconds; of one table, all methods have the same axis.
    axis = "processor seconds of training and test" + ("; of a GPU, its seconds" if gpu else "")
    seconds = (axis, compute_seconds) if known else ("seconds of training and test", _seconds)
    return [seconds, ("milliseconds an episode (median)", latency), ("peak memory, MiB", memory)]


def table_plots(table: Table, runs: Runs, styles: Styles) -> list[Plot]:
    """Return the plots of a table."""
    rows = [row for row in table.rows if row.primary]
    if not rows:
        return []
    best = rows[:METHODS]
    methods = f" of the best {METHODS} of {len(rows)} methods" if len(rows) > METHODS else ""
    costs = [plot for axis, cost in _costs(rows) if (plot := _against_cost(rows, axis, cost, methods, styles))]
    return [
        *costs,
        *curve_plots(best, methods, styles),
        *limit_plots(rows, styles),
        *_learning_curves(best, methods, styles),
        _distributions(best, methods, styles),
        *reliability_plots(best, runs, methods, styles),
    ]


def _against_cost(rows: Sequence[Row], axis: str, cost: Cost, methods: str, styles: Styles) -> Plot | None:
    # A cost of 0 has no place on a logarithmic axis. Costs of two machines are not compared.
    machines = [[(x, row) for row, x in group if x] for group in by_machine(rows, cost)]
    places = {row.name: place for place, row in enumerate(rows)}
    points = sorted((point for machine in machines for point in machine), key=lambda point: places[point[1].name])
    if not points:
        return None
    metric = rows[0].metric
    plot = empty_figure(axis, metric.heading, x_axis_type="log")
    best = []
    for machine in machines:
        front = _pareto([(x, _value(row)) for x, row in machine], metric.sign)
        plot.step([x for x, _ in front], [y for _, y in front], mode="after", line_dash="dashed", line_color=GREY)
        best += [(x, row) for x, row in machine if (x, _value(row)) in front]
    for x, row in points[:METHODS]:
        assert row.primary is not None
        add_points(plot, row.name, styles[row.name], [x], [_value(row)], [row.primary.ci95 * metric.scale], size=11)
    add_hover(plot, axis, metric.heading)
    names = ", ".join(row.name for _, row in sorted(best, key=lambda point: point[0]))
    fronts = "the Pareto front of all methods" if len(machines) == 1 else "the Pareto front of each machine"
    return Plot(
        f"{capital(metric.title)}{methods} against {axis}; dashed: {fronts} ({names})",
        "; ".join(f"{row.name}: {said(metric, row.primary.mean)} at {x:.3g}" for x, row in points if row.primary),
        plot,
    )


def _value(row: Row) -> float:
    assert row.primary is not None
    return row.primary.mean * row.metric.scale


def _pareto(points: Sequence[tuple[float, float]], sign: int) -> list[tuple[float, float]]:
    """Return the Pareto front of (cost, value) points, cheapest first; `sign` is 1 where high values are better."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * value > sign * front[-1][1]:
            front.append((cost, value))
    return front


def _learning_curves(rows: Sequence[Row], methods: str, styles: Styles) -> list[Plot]:
    """Return the plot of the validations of all seeds; none where nothing was validated."""
    metric = validated_by(rows[0])
    axis = "training episodes, or images"
    plot = empty_figure(axis, metric.heading)
    words, seeds = [], 1
    for row in rows:
        curves = [record.train for record in row.finished if record.train and record.train.validation]
        seeds = max(seeds, len(curves))
        for train in curves:
            x = [point.step * (train.episodes or train.images) / train.steps for point in train.validation]
            y = [point.value * metric.scale for point in train.validation]
            add_line(plot, row.name, styles[row.name], x, y, width=2 if len(curves) == 1 else 1.3)
            add_points(plot, row.name, styles[row.name], x[-1:], y[-1:])  # also shows a line of one point
        if curves:
            first, last = ([curve.validation[place].value for curve in curves] for place in (0, -1))
            words.append(f"{row.name}: from {said(metric, _mean(first))} to {said(metric, _mean(last))}")
    if not words:
        return []
    add_hover(plot, "episodes or images", metric.heading, "{0,0}")
    of = f"each of {seeds} seeds a line" if seeds > 1 else "one seed"
    return [Plot(f"Validation: {metric.title}{methods} during training, {of}", "; ".join(words), plot)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _distributions(rows: Sequence[Row], methods: str, styles: Styles) -> Plot:
    metric = rows[0].metric
    plot = empty_figure(f"{metric.title} of an episode, {metric.unit}".rstrip(", "), "share of the episodes")
    words = []
    for row in rows:
        if row.values is None:
            continue
        values, counts = np.unique(np.round(row.values * metric.scale, 3), return_counts=True)
        share = np.cumsum(counts) / counts.sum()
        # The line starts at 0 below the lowest value and ends at 1 at the right border: one value makes a line, too.
        border = values[-1] if metric.highest is None else metric.highest * metric.scale
        x, y = [values[0], *values, border], [0.0, *share, 1.0]
        add_line(plot, row.name, styles[row.name], np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1])
        if row.values.ndim == 1:
            low, middle, high = np.quantile(row.values, (0.05, 0.5, 0.95))
            shares = f"5 % {said(metric, low)}, median {said(metric, middle)}, 95 % {said(metric, high)}"
            words.append(f"{row.name}: {shares}")
    add_hover(plot, metric.heading, "share")
    return Plot(f"Share of test episodes{methods} with at most this {metric.title}", "; ".join(words), plot)
