"""Reliability diagrams: how often the predictions of a confidence are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metabench.analysis.tables import Row
from metabench.records.runs import Runs
from metabench.records.tallies import Tallies
from metabench.reporting.report.drawing import GREY, Plot, Styles, add_hover, add_line, add_points, empty_figure

#: Fewest queries of a point: the share of fewer is mostly noise.
_QUERIES = 20


def reliability_plots(rows: Sequence[Row], runs: Runs, methods: str, styles: Styles) -> list[Plot]:
    """Return the diagram of the scores as they are, and at the temperature; none of records without totals."""
    tallies = {row.name: [found for record in row.finished if (found := runs.tallies(record))] for row in rows}
    plots = []
    for scale, title in enumerate(("scores as they are", "at the temperature of each cell")):
        plot = empty_figure("confidence", "share of right predictions")
        plot.line([0, 1], [0, 1], line_color=GREY, line_dash="dashed")
        words = []
        for name, of_seeds in tallies.items():
            points = _points(of_seeds, scale)
            if points is None:
                continue
            confidence, correct, mean, accuracy = points
            add_line(plot, name, styles[name], confidence, correct, width=1.5)
            add_points(plot, name, styles[name], list(confidence), list(correct))
            words.append(f"{name}: mean confidence {mean:.3f}, {accuracy:.3f} are right")
        if words:
            add_hover(plot, "confidence", "right")
            caption = f"Reliability{methods}, {title}; on the dashed line, confidence is accuracy"
            plots.append(Plot(caption, "; ".join(words), plot))
    return plots


def _points(tallies: Sequence[Tallies], scale: int) -> tuple[np.ndarray, np.ndarray, float, float] | None:
    """Return mean confidence and accuracy of the bins with enough queries, then of all queries."""
    if not tallies:
        return None
    queries, confidence, correct = sum(found.reliability[scale] for found in tallies)
    enough = queries >= _QUERIES
    if not enough.any():
        return None
    total = float(queries.sum())
    return (
        confidence[enough] / queries[enough],
        correct[enough] / queries[enough],
        float(confidence.sum()) / total,
        float(correct.sum()) / total,
    )
