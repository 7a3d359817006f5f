"""Plot metrics that are places on a curve (`metabench.records.measured.Place`), a line for each method."""

from __future__ import annotations

from collections.abc import Sequence

from bokeh.models import FixedTicker

from metabench.analysis.tables import Row
from metabench.records.measured import Declaration
from metabench.reporting.report.drawing import (
    Plot,
    Styles,
    add_hover,
    add_line,
    add_points,
    capital,
    empty_figure,
    said,
)


def curve_plots(rows: Sequence[Row], methods: str, styles: Styles) -> list[Plot]:
    """Return the plot of each curve that has several places.

    Args:
        rows: the methods, with a result each.
        methods: which methods they are, for the captions.
        styles: styles of the methods, by name.
    """
    curves: dict[tuple[str, str], dict[str, Declaration]] = {}
    for row in rows:
        for name, declared in row.finished[0].declarations.items():
            if declared.place is not None:
                curves.setdefault((declared.place.curve, declared.place.axis), {})[name] = declared
    plots = (_plot(curve, axis, metrics, rows, methods, styles) for (curve, axis), metrics in curves.items())
    return [plot for plot in plots if plot is not None]


def _plot(
    curve: str, axis: str, metrics: dict[str, Declaration], rows: Sequence[Row], methods: str, styles: Styles
) -> Plot | None:
    """Return the plot of a curve; None of a single place."""
    places = {name: declared.place.at for name, declared in metrics.items() if declared.place is not None}
    if len(set(places.values())) < 2:
        return None
    metric = next(iter(metrics.values()))
    heading = f"{curve} {metric.unit}".rstrip()
    plot = empty_figure(axis, heading)
    plot.xaxis.ticker = FixedTicker(ticks=sorted(set(places.values())))
    words = []
    for row in rows:
        values = _values(row)
        known = sorted((at, *values[name]) for name, at in places.items() if name in values)
        x = [at for at, _, _ in known]
        y = [value * metric.scale for _, value, _ in known]
        add_points(plot, row.name, styles[row.name], x, y, [half * metric.scale for _, _, half in known])
        add_line(plot, row.name, styles[row.name], x, y)
        words.append(f"{row.name}: " + ", ".join(f"{said(metric, value)} at {at:g}" for at, value, _ in known))
    add_hover(plot, axis, heading)
    caption = f"{capital(curve)}{methods} against {axis}, ± half its 95 % interval over episodes"
    return Plot(caption, "; ".join(words), plot)


def _values(row: Row) -> dict[str, tuple[float, float]]:
    """Return value and half the interval of all metrics, the one that ranks included."""
    assert row.primary is not None
    return {**row.metrics, row.finished[0].ranked_by: (row.primary.mean, row.primary.ci95)}
