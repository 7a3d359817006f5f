"""Figures of the tables as text, and where a row has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from metabench.analysis.costs import mean_over_seeds, validation
from metabench.analysis.metrics import OF_TASK
from metabench.analysis.tables import Row, Table
from metabench.errors import UsageError, nearest
from metabench.records.measured import Declaration
from metabench.specs import PublishedResult


def published_accuracy(result: PublishedResult) -> str:
    """Return a published accuracy with its interval, in percent, to four digits."""
    interval = "" if result.ci95 is None else f" ± {result.ci95 * 100:.4g}"
    return f"{result.accuracy * 100:.4g}{interval}"


def number(value: float | None) -> str:
    """Return a number rounded to three digits, or to an integer from 100; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def validation_of(row: Row) -> float | None:
    """Return the validation of the tested weights, mean over the seeds."""
    return mean_over_seeds(row, validation)


def validated_by(row: Row) -> Declaration:
    """Return the declaration of the metric of the validation."""
    if not row.finished:
        return OF_TASK[row.records[0].task][0].declaration
    record = row.finished[0]
    return record.declarations[record.metric_of_answers]


def metric_of(row: Row, name: str) -> tuple[float, float] | None:
    """Return value and half the interval of a metric; None where the row lacks it."""
    if row.primary and row.finished[0].ranked_by == name:
        return row.primary.mean, row.primary.ci95
    return row.metrics.get(name)


def metrics_of(tables: Sequence[Table]) -> dict[str, Declaration]:
    """Return the declarations of all metrics of the tables, those that rank first."""
    records = [record for table in tables for row in table.rows for record in row.finished]
    first = {record.ranked_by: record.ranking for record in records}
    return {
        **first,
        **{name: of for record in records for name, of in record.declarations.items() if name not in first},
    }


def check_metrics(tables: Sequence[Table], names: Iterable[str], further: Iterable[str] = ()) -> None:
    """Check that a record has each metric.

    Args:
        tables: the tables.
        names: the names of the metrics.
        further: other accepted names, for the message.

    Raises:
        UsageError: a name is unknown.
    """
    known = [*metrics_of(tables), *further]
    for name in names:
        if name not in known:
            raise UsageError(f"no record has '{name}'{nearest(name, known)}. Known: {', '.join(known)}")


def rounded(metric: Declaration, value: float, ci95: float) -> str:
    """Return a value of a metric, scaled: percentages to two decimals, others to two digits of their interval."""
    if metric.unit == "%":
        return f"{value * metric.scale:.2f}"
    half = ci95 * metric.scale
    decimals = 3 if not 0 < half < math.inf else min(6, max(0, 1 - math.floor(math.log10(half))))
    return f"{value * metric.scale:.{decimals}f}"


def shown(metric: Declaration, value: float, ci95: float | None) -> str:
    """Return a value with half its interval, e.g. ``"81.20 ± 0.63"``."""
    if ci95 is None:
        return rounded(metric, value, 0.0)
    return f"{rounded(metric, value, ci95)} ± {rounded(metric, ci95, ci95)}"


def shown_difference(metric: Declaration, difference: float, ci95: float) -> str:
    """Return a difference with its sign, e.g. ``"−1.20 ± 0.63"``."""
    sign = "−" if rounded(metric, difference, ci95).startswith("-") else "+"
    return f"{sign}{shown(metric, difference, ci95).removeprefix('-')}"
