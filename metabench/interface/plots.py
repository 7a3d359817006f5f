"""Plots of results, for notebooks and papers, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from metabench.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from metabench.analysis.tables import Table
    from metabench.records.record import Record


def plot_accuracy(tables: Sequence[Table], ax: Axes | None = None) -> Axes:
    """Plot the metric that ranks: a line for each method, a group of points for each table.

    Args:
        tables: the tables.
        ax: the axes; None makes new ones.

    Raises:
        UsageError: matplotlib is missing, or there are no results.
    """
    rows = [row for table in tables for row in table.rows if row.primary]
    if not rows:
        raise UsageError("no cell has results: there is nothing to plot")
    axes, metric = _axes(ax), rows[0].metric
    titles = [f"{table.dataset}\n{table.shape}\n{table.backbone}" for table in tables]
    names = list(dict.fromkeys(row.name for row in rows))
    for number, name in enumerate(names):
        # Side by side, so that intervals do not hide one another.
        shift = 0.6 * ((number + 0.5) / len(names) - 0.5)
        points = [
            (place + shift, row.primary.mean * metric.scale, row.primary.ci95 * metric.scale)
            for place, table in enumerate(tables)
            for row in table.rows
            if row.name == name and row.primary and row.metric.heading == metric.heading
        ]
        if points:
            x, y, half = zip(*points, strict=True)
            axes.errorbar(x, y, half, fmt="o", capsize=3, label=name)
    axes.set_xticks(range(len(tables)), titles)
    axes.set_ylabel(f"{metric.heading} ± half the 95 % interval over episodes")
    axes.legend()
    return axes


def plot_training(records: Sequence[Record], ax: Axes | None = None) -> Axes:
    """Plot the validation curve of each training; arguments and errors as of `plot_accuracy`."""
    trained = [record for record in records if record.train and record.train.validation]
    if not trained:
        raise UsageError("nothing was validated: there is nothing to plot")
    axes, metric = _axes(ax), trained[0].declarations[trained[0].metric_of_answers]
    for record in trained:
        assert record.train is not None, "it is trained"
        steps = [point.step for point in record.train.validation]
        values = [point.value * metric.scale for point in record.train.validation]
        shape = record.shape
        axes.plot(steps, values, label=f"{record.algorithm} · {shape} · seed {record.seed}")
    axes.set_xlabel("training steps")
    axes.set_ylabel(f"{metric.heading} in validation")
    axes.legend()
    return axes


def _axes(ax: Axes | None) -> Axes:
    """Return the axes, or new ones.

    Raises:
        UsageError: matplotlib is missing.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise UsageError("plots need matplotlib: pip install 'metabench[plots]'") from error
    return pyplot.subplots(layout="constrained")[1]
