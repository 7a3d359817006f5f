"""Rank methods over many datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metabench.analysis.row_names import method_of
from metabench.analysis.stats import Floats
from metabench.analysis.tables import Row, Table, common_episodes, value_on
from metabench.errors import UsageError

#: Fewest datasets of an interval: with five, not even five wins of five have a p below .05 in a sign test.
LEAST_DATASETS = 6
#: Bootstrap samples of the datasets.
RESAMPLES = 10_000


@dataclass(frozen=True)
class Share:
    """A figure over datasets.

    Attributes:
        value: mean over the datasets.
        low: lower end of its 95 % interval; None where there are fewer than `LEAST_DATASETS`.
        high: upper end of its 95 % interval, likewise.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Standing:
    """One method over all datasets.

    Attributes:
        name: name of the method.
        mean_rank: its mean rank; None where it lacks a cell that another method has.
        wins: share of the pairs of it and another method in which it is better.
        datasets: number of datasets on which it was tested.
        failed: number of its cells that failed.
        missing: the tables in which it has no result, as text.
    """

    name: str
    mean_rank: Share | None
    wins: Share | None
    datasets: int
    failed: int = 0
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Ranking:
    """Methods ranked over many datasets.

    Attributes:
        standings: the methods, by mean rank; those without one come last.
        datasets: names of the datasets.
        tables: number of tables.
    """

    standings: Sequence[Standing]
    datasets: Sequence[str]
    tables: int


def rank_across(tables: Sequence[Table], resamples: int = RESAMPLES, seed: int = 0) -> Ranking:
    """Return one ranking of the methods of several tables.

    In a table, a method has the mean of the ranks that equal values share (Demšar 2006), on the episodes that all of
    them have. A failed cell is worse than all that have a value. A cell is missing where it is skipped or was not run:
    a method with a missing cell has no mean rank, since the others would be ranked without it, but it wins and loses
    against the methods of the tables that it is in. Tables of one dataset are averaged, and datasets are resampled:
    shots, ways and backbones of a dataset are no datasets of their own. Floors are left out.

    Args:
        tables: the tables.
        resamples: number of bootstrap samples.
        seed: seed of the samples.

    Raises:
        UsageError: there is one dataset only, or no table has two methods.
    """
    datasets = list(dict.fromkeys(table.dataset for table in tables))
    if len(datasets) < 2:
        raise UsageError(
            f"a ranking across datasets needs several, and these runs have {', '.join(datasets) or 'none'}: name "
            "further directories"
        )
    scores = [_scores(table) for table in tables]
    names = sorted({name for of_table in scores for name in of_table})
    if all(len(of_table) < 2 for of_table in scores):
        raise UsageError("no table has two methods with results: name directories whose methods share datasets")
    ranks = np.full((len(datasets), len(names)), np.nan)
    wins = np.full((len(datasets), len(names)), np.nan)
    complete = [name for name in names if all(name in of_table for of_table in scores)]
    for place, dataset in enumerate(datasets):
        members = [of_table for table, of_table in zip(tables, scores, strict=True) if table.dataset == dataset]
        for i, name in enumerate(names):
            inside = [of_table for of_table in members if name in of_table]
            if name in complete:
                ranks[place, i] = np.mean([_rank(name, of_table, complete) for of_table in inside])
            won = [share for of_table in inside if (share := _wins(name, of_table)) is not None]
            wins[place, i] = np.mean(won) if won else np.nan
    drawn = np.random.default_rng(seed).multinomial(len(datasets), [1 / len(datasets)] * len(datasets), resamples)
    standings = [
        Standing(
            name,
            _share(ranks[:, i], drawn) if name in complete else None,
            _share(wins[:, i], drawn),
            len({table.dataset for table, of_table in zip(tables, scores, strict=True) if name in of_table}),
            sum(of_table.get(name) == -np.inf for of_table in scores),
            [table.task for table, of_table in zip(tables, scores, strict=True) if name not in of_table],
        )
        for i, name in enumerate(names)
    ]
    return Ranking(sorted(standings, key=_order), datasets, len(tables))


def _order(standing: Standing) -> tuple[bool, float, float, str]:
    """Return a key: the best mean rank first, then the largest share of wins."""
    rank, wins = standing.mean_rank, standing.wins
    return rank is None, rank.value if rank else 0.0, -wins.value if wins else 0.0, standing.name


def _scores(table: Table) -> dict[str, float]:
    """Return the value of each method with an outcome, high values being better; -inf where it failed."""
    ranked = [row for row in table.rows if row.rank is not None]
    common = common_episodes(ranked)
    scores = {method_of(row): row.metric.sign * value_on(row, common) for row in ranked}
    return scores | {method_of(row): -np.inf for row in table.rows if _has_failed(row)}


def _has_failed(row: Row) -> bool:
    return not row.finished and any(record.status == "failed" for record in row.records)


def _rank(name: str, scores: dict[str, float], among: Sequence[str]) -> float:
    """Return the rank of a method among some, equal values sharing the mean of their ranks."""
    own, others = scores[name], [scores[other] for other in among if other != name]
    return 1.0 + sum(other > own for other in others) + sum(other == own for other in others) / 2


def _wins(name: str, scores: dict[str, float]) -> float | None:
    """Return the share of the other methods of a table that are worse, equal ones counting half; None without any."""
    own, others = scores[name], [score for other, score in scores.items() if other != name]
    return (
        sum(1.0 if own > other else 0.5 if own == other else 0.0 for other in others) / len(others) if others else None
    )


def _share(values: Floats, drawn: npt.NDArray[np.int64]) -> Share | None:
    """Return the mean of the values of datasets, with its bootstrap interval.

    Args:
        values: [d] values; NaN where a method was not tested on a dataset.
        drawn: [k, d] number of times that each dataset is in each resampled set.
    """
    known = np.isfinite(values)
    if not known.any():
        return None
    mean = float(values[known].mean())
    if known.sum() < LEAST_DATASETS:
        return Share(mean)
    resampled, inside = drawn @ np.where(known, values, 0.0), drawn @ known
    low, high = np.quantile(resampled[inside > 0] / inside[inside > 0], [0.025, 0.975])
    return Share(mean, float(low), float(high))
