"""The same cell in two runs: how they are matched, and their difference on identical episodes."""

from __future__ import annotations

from collections.abc import Iterable

from metabench.analysis.bootstrap import pooled_difference
from metabench.analysis.metrics import own_metric
from metabench.analysis.stats import MeanInterval, mean_interval, t_below
from metabench.analysis.tables import episodes_of
from metabench.records.record import Record
from metabench.records.runs import Runs


def by_title(records: Iterable[Record]) -> dict[str, Record]:
    """Return the latest record of each cell title; a confirmation on other episodes is no cell of the suite."""
    ordered = sorted((record for record in records if not record.confirms), key=lambda record: record.finished)
    return {f"{r.algorithm} · {r.task_text} · seed {r.seed}": r for r in ordered}


def is_timed(record: Record) -> bool:
    """Return whether a budget of seconds ended the training, so that its accuracy depends on the machine."""
    return record.train is not None and record.train.timed


def are_comparable(old: Record, new: Record) -> bool:
    """Return whether two records have results on the same episodes that a machine's speed did not decide."""
    has_results = bool(old.primary and new.primary)
    return has_results and episodes_of(old) == episodes_of(new) and not (is_timed(old) or is_timed(new))


def difference(base: Runs, old: Record, candidate: Runs, new: Record, metric: str) -> MeanInterval:
    """Return candidate minus base with its interval, on the first episodes that both have.

    Args:
        base: the run of `old`.
        old: a record that has the metric.
        candidate: the run of `new`.
        new: a record that is comparable with `old` (`are_comparable`), and has the metric.
        metric: the name of the metric.

    Raises:
        UsageError: the metric pools episodes, and is not one of metabench's own.
    """
    before, after = base.figures(old, metric), candidate.figures(new, metric)
    if before.ndim == after.ndim == 1:
        common = min(len(before), len(after))
        return mean_interval(after[:common] - before[:common])
    return pooled_difference(own_metric(metric), before, after)


def p_above(interval: MeanInterval, limit: float, sign: int = 1) -> float:
    """Return the one-sided p-value of a difference above a limit.

    Args:
        interval: the difference.
        limit: the limit, on the side of the sign.
        sign: -1 tests whether the difference is below minus the limit.
    """
    excess = sign * interval.mean - limit
    error = interval.std / interval.episodes**0.5
    if error == 0:
        return 0.0 if excess > 0 else 1.0
    return t_below(-excess / error, interval.episodes - 1)
