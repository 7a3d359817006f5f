"""The order of the methods of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from metabench.analysis.costs import eval_rate, gflops, latency, mean_over_seeds, memory, train_rate
from metabench.analysis.tables import Row, Table
from metabench.reporting.figures import check_metrics, metric_of, validated_by, validation_of

#: Sorting keys that are no metrics: functions of a row, in ascending order; ranks do not change.
SORT_KEYS: dict[str, Callable[[Row], float | None]] = {
    "alone": lambda row: None if row.inductive is None else -row.metric.sign * row.inductive,
    "validation": lambda row: None if (mean := validation_of(row)) is None else -validated_by(row).sign * mean,
    "algorithm": lambda row: 0.0,
    "throughput": lambda row: _negative(mean_over_seeds(row, eval_rate)),
    "training": lambda row: _negative(mean_over_seeds(row, train_rate)),
    "latency": lambda row: mean_over_seeds(row, latency),
    "memory": lambda row: mean_over_seeds(row, memory),
    "flops": lambda row: mean_over_seeds(row, gflops),
}


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def sort_tables(tables: Sequence[Table], by: str | None = None) -> list[Table]:
    """Return the tables with rows sorted by a metric, the best first, or by one of `SORT_KEYS`.

    None sorts by the metric that ranks. Rows without a value come last, by name; after them floors, and rows without
    results.

    Raises:
        UsageError: no record has the metric.
    """
    if by is not None and by not in SORT_KEYS:
        check_metrics(tables, [by], further=SORT_KEYS)

    sort_key = SORT_KEYS.get(by or "") or (lambda row: _loss(row, by))

    def key(row: Row) -> tuple[bool, bool, bool, float, str]:
        value = sort_key(row)
        return row.primary is None, row.floor, value is None, value or 0.0, row.name

    return [replace(table, rows=sorted(table.rows, key=key)) for table in tables]


def _loss(row: Row, metric: str | None) -> float | None:
    """Return the value of a metric, or of the one that ranks; negative where high values are better."""
    if not row.finished:
        return None
    name = metric or row.finished[0].ranked_by
    found = metric_of(row, name)
    return None if found is None else -row.finished[0].declarations[name].sign * found[0]
