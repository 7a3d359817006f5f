"""Metrics of a shift at test: queries of strange classes, and corrupted queries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from metabench.analysis.metrics import Measure
from metabench.analysis.stats import Floats
from metabench.planning.cells import Testing
from metabench.records.measured import Declaration
from metabench.specs import Metric


def measures_of_shift(test: Testing) -> list[Measure]:
    """Return the metrics of the shifts that a test asks for; none of a regression."""
    if test.task == "regression":
        return []
    strangers = [of_strangers(test.strangers)] if test.strangers else []
    return [*strangers, *(of_corruption(name, test.severity) for name in test.corruptions)]


def of_strangers(classes: int) -> Measure:
    """Return the measure of queries of strange classes.

    Args:
        classes: number of strange classes of an episode.
    """
    summary = (
        f"area under the ROC curve: the largest probability tells queries of the episode's classes from queries of "
        f"{classes} other classes; .5 by chance"
    )
    return Measure(
        f"auroc_{classes}",
        Declaration(title=f"AUROC {classes}", lowest=0.0, highest=1.0, summary=summary),
        Metric(),
    )


def of_corruption(name: str, severity: int) -> Measure:
    """Return the measure of queries that are corrupted.

    Args:
        name: name of the corruption.
        severity: its severity, 1 to 5.
    """
    words = name.replace("_", " ")
    summary = f"accuracy where all queries have {words} of severity {severity} (Hendrycks & Dietterich 2019)"
    return Measure(
        f"accuracy_{name}_{severity}",
        Declaration(title=f"{words} {severity}", unit="%", scale=100.0, lowest=0.0, highest=1.0, summary=summary),
        Metric(),
    )


def auroc(confidences: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """Return the [B] areas under the ROC curve; queries of equal confidence count half.

    Args:
        confidences: [B, M] confidence of each query.
        known: [B, M] whether the class of the query is in the episode; in each row, some are and some are not.
    """
    from scipy.stats import rankdata  # takes longer to import than a whole run needs to start

    ranks = rankdata(confidences, axis=1)
    ours = known.sum(axis=1)
    theirs = known.shape[1] - ours
    wins: Floats = (ranks * known).sum(axis=1) - ours * (ours + 1) / 2
    areas: Floats = wins / (ours * theirs)
    return areas
