"""Compare the methods of a table on the same episodes.

Computes mean differences, their intervals, p-values of all pairs, and the number of episodes that would settle a tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from metabench.analysis.bootstrap import interval_of, replicates
from metabench.analysis.claims import Trials, differences_by_seed, is_about_methods, settled_by_seeds
from metabench.analysis.crossed import CrossedInterval, crossed_interval
from metabench.analysis.stats import DataIntervals, Floats, MeanInterval, mean_interval, t_below, t_quantile
from metabench.specs import Metric

#: Random sign patterns per test.
FLIPS = 10_000
#: Differences with a Holm-adjusted p above this are ties.
ALPHA = 0.05
#: Power of the test for which `settled_by` computes the number of episodes.
POWER = 0.8
#: Sign patterns held in memory at once.
_FLIPS_AT_ONCE = 1000
#: Degrees of freedom at which Student's t equals the normal distribution.
_INFINITE_FREEDOM = 10**9


@dataclass(frozen=True)
class PairedDifference:
    """One method's accuracy minus another's, on identical episodes.

    Attributes:
        difference: difference of the mean accuracies.
        ci95: half the 95 % interval: over episodes (Student t on the per-episode differences), or about the methods.
        data_ci95: half the 95 % interval about the data (`metabench.analysis.stats.DataIntervals`); None where there
            are too few classes.
        p: two-sided p-value by random sign flips of the per-episode differences (`pair_p_values`), or about the
            methods.
        p_holm: `p` adjusted for all pairs of methods in the table (Holm 1979).
        settled_by: episodes needed to find a difference of this size with a chance of `POWER`, beside the differences
            that are significant now; None where the difference is 0, and about the methods.
        about_methods: whether difference, interval and p are about the methods, over training seeds and episodes
            (`metabench.analysis.crossed`); else they are of these weights.
        settled_by_seeds: training seeds needed to find it on these episodes; None where no number is enough, and of
            these weights.
    """

    difference: float
    ci95: float
    data_ci95: float | None
    p: float
    p_holm: float
    settled_by: int | None
    about_methods: bool = False
    settled_by_seeds: int | None = None

    @property
    def tie(self) -> bool:
        """Return whether the difference is not significant."""
        return self.p_holm > ALPHA


@dataclass(frozen=True)
class Contest:
    """The methods of a table that were tested on the same episodes.

    Attributes:
        methods: for each method, the best first, [n] per-episode values, or [n, k] figures of a pooled metric.
        groups: [n, N] groups of the episodes' classes; None leaves out the intervals about the data.
        pooled: for each method, the metric that pools its figures; empty for per-episode values.
        trials: for each method, its values by training seed, of which `methods` has the means; empty for a comparison
            of these weights.
    """

    methods: Sequence[Floats]
    groups: npt.NDArray[np.int64] | None = None
    pooled: Sequence[Metric] = ()
    trials: Sequence[Trials] = ()


@dataclass(frozen=True)
class Comparisons:
    """The pairwise comparisons of a contest.

    Attributes:
        versus_best: the difference of each other method to the best, in the order of the contest.
        p_holm: [m][m] p-values of all pairs, adjusted for all pairs of the contest; 1 on the diagonal.
    """

    versus_best: Sequence[PairedDifference]
    p_holm: Sequence[Sequence[float]]


def compare(contests: Sequence[Contest]) -> list[Comparisons]:
    """Compare the methods of each table pairwise.

    Returns:
        The comparisons of each contest; p-values are adjusted within the contest.

    Raises:
        ValueError: methods of a contest have different numbers of episodes, or fewer than two.
    """
    played = [contest for contest in contests if len(contest.methods) > 1]
    p_values = iter(pair_p_values([np.stack(contest.methods) for contest in played if not contest.pooled]))
    comparisons = iter(
        _pooled_comparisons(contest) if contest.pooled else _paired_comparisons(contest, next(p_values))
        for contest in played
    )
    return [next(comparisons) if len(contest.methods) > 1 else Comparisons([], [[1.0]]) for contest in contests]


def _paired_comparisons(contest: Contest, p: Floats) -> Comparisons:
    """Return the comparisons of per-episode values; `p` as in `_comparisons`."""
    rows = [method - contest.methods[0] for method in contest.methods[1:]]
    data = None if contest.groups is None else DataIntervals(contest.groups)
    intervals = [(mean_interval(row), None if data is None else data.ci95(row)) for row in rows]
    if not contest.trials:
        return _comparisons(len(contest.methods), p, intervals)
    # Pair 0-j comes j-th: its interval is that of method j minus the best.
    claims = [_claim(contest.trials[j], contest.trials[i]) for i, j in zip(*_pairs(len(rows) + 1), strict=True)]
    p = np.array([of_weights if claim is None else claim.p for of_weights, claim in zip(p, claims, strict=True)])
    found = _comparisons(len(contest.methods), p, intervals, claims[: len(rows)])
    about = [is_about_methods(contest.trials[0], trials) for trials in contest.trials[1:]]
    versus_best = [
        replace(difference, about_methods=of_methods)
        for difference, of_methods in zip(found.versus_best, about, strict=True)
    ]
    return replace(found, versus_best=versus_best)


def _claim(first: Trials, second: Trials) -> CrossedInterval | None:
    """Return the difference of two methods over seeds and episodes; None where it is of these weights."""
    differences = differences_by_seed(first, second)
    return None if differences is None else crossed_interval(differences)


def _pooled_comparisons(contest: Contest) -> Comparisons:
    """Return the comparisons of a pooled metric, by a paired bootstrap: p is that of t = difference / its error."""
    n, methods = len(contest.methods[0]), range(len(contest.methods))
    resampled = replicates(dict(enumerate(contest.methods)), dict(enumerate(contest.pooled)))
    values = [
        metric.pooled(figures.mean(axis=0)) for metric, figures in zip(contest.pooled, contest.methods, strict=True)
    ]
    first, second = _pairs(len(methods))
    intervals = [
        interval_of(values[j] - values[i], resampled[j] - resampled[i], n) for i, j in zip(first, second, strict=True)
    ]
    p = np.array([_t_p(interval) for interval in intervals])
    return _comparisons(len(methods), p, [(interval, None) for interval in intervals[: len(methods) - 1]])


def _t_p(interval: MeanInterval) -> float:
    """Return the two-sided p-value of a difference from 0."""
    if interval.std == 0:
        return 1.0 if interval.mean == 0 else 0.0
    return 2 * t_below(-abs(interval.mean) / (interval.std / interval.episodes**0.5), interval.episodes - 1)


def _comparisons(
    methods: int,
    p: Floats,
    versus_best: Sequence[tuple[MeanInterval, float | None]],
    claims: Sequence[CrossedInterval | None] = (),
) -> Comparisons:
    """Return the comparisons of a contest.

    Args:
        methods: number m of methods.
        p: [m·(m-1)/2] p-values of all pairs, in the order of `_pairs`.
        versus_best: the difference of each other method to the best, and half its interval about the data.
        claims: the same differences over seeds and episodes, where they are about the methods; empty for none.
    """
    adjusted = holm(p)
    matrix = np.ones((methods, methods))
    matrix[_pairs(len(matrix))] = adjusted
    matrix = np.minimum(matrix, matrix.T)
    # Holm compares the k-th smallest p-value with ALPHA / (pairs - k + 1). A tie comes after all that are significant.
    place = np.minimum(np.argsort(np.argsort(p, kind="stable")), np.count_nonzero(adjusted <= ALPHA))
    levels = ALPHA / (len(p) - np.minimum(place, len(p) - 1))
    differences = []
    for i, (interval, data_ci95) in enumerate(versus_best):  # the first pairs are those with the best
        p_values, level = (float(p[i]), float(adjusted[i])), float(levels[i])
        if claim := claims[i] if claims else None:
            seeds = settled_by_seeds(claim, _quantiles(level))
            differences.append(
                PairedDifference(claim.mean, claim.ci95, data_ci95, *p_values, None, settled_by_seeds=seeds)
            )
        else:
            episodes = settled_by(interval.mean, interval.std, level)
            differences.append(PairedDifference(interval.mean, interval.ci95, data_ci95, *p_values, episodes))
    return Comparisons(differences, matrix.tolist())


def _pairs(methods: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first and second methods of all pairs: 0-1, 0-2, …, 1-2, …."""
    first, second = np.triu_indices(methods, 1)
    return first, second


def pair_p_values(tables: Sequence[Floats], flips: int = FLIPS, seed: int = 0) -> list[Floats]:
    """Return two-sided sign-flip p-values of all pairs of methods of each table.

    If two methods are equally good, a difference is as likely as its negative. p is the share of random sign patterns,
    the observed one included, whose mean difference is at least as far from 0. Where no random pattern is, p is the
    smaller of that share and the p-value of the paired t test.

    Args:
        tables: for each table, [m, n] per-episode accuracies of its methods; all tables share the sign patterns.
        flips: number of random sign patterns.
        seed: seed of the patterns.

    Returns:
        For each table, [m·(m-1)/2] p-values of the pairs 0-1, 0-2, …, 1-2, ….
    """
    p_values: dict[int, Floats] = {}
    for length in sorted({table.shape[1] for table in tables}):
        places = [place for place, table in enumerate(tables) if table.shape[1] == length]
        reached = _reached([tables[place] for place in places], flips, seed)
        for place, counts in zip(places, reached, strict=True):
            p = counts / (flips + 1)
            rare = counts == 1  # sign flips only show that p is below 1 / flips
            p[rare] = np.minimum(p[rare], _paired_t_p(_differences(tables[place])[rare]))
            p_values[place] = p
    return [p_values[place] for place in range(len(tables))]


def _differences(table: Floats) -> Floats:
    """Return the [m·(m-1)/2, n] differences of all pairs of an [m, n] table."""
    first, second = _pairs(len(table))
    return table[first] - table[second]


def _reached(tables: Sequence[Floats], flips: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Count the sign patterns under which each pair's sum of differences is at least as far from 0.

    The signs are flipped once for each method: a pair's sum is the difference of its methods' sums.

    Args:
        tables: for each table, [m, n] accuracies, with the same n.
        flips: number of random sign patterns.
        seed: seed of the patterns.

    Returns:
        For each table, [m·(m-1)/2] counts, the observed pattern included.
    """
    stacked = np.concatenate(tables)
    starts = np.cumsum([0, *(len(table) for table in tables)])
    tests = [_Test.of(table, flips) for table in tables]
    generator = np.random.default_rng(seed)
    for done in range(0, flips, _FLIPS_AT_ONCE):
        size = (min(_FLIPS_AT_ONCE, flips - done), stacked.shape[1])
        signs = generator.integers(0, 2, size=size, dtype=np.int8) * 2.0 - 1.0
        sums = stacked @ signs.T
        for test, start in zip(tests, starts, strict=False):
            flipped = sums[start + test.first] - sums[start + test.second]
            far = np.abs(flipped, out=flipped) >= test.threshold
            for pair, row in zip(test.near, far, strict=True):
                test.counts[pair] += np.count_nonzero(row)  # faster than far.sum(axis=1)
    return [test.counts for test in tests]


@dataclass(frozen=True)
class _Test:
    """The sign-flip test of the pairs of a table.

    Attributes:
        near: [k] pairs that a random pattern may reach; the others are so clear that none is expected to.
        first: [k] first method of each near pair.
        second: [k] second method of each near pair.
        threshold: [k, 1] distance from 0 at which a flipped sum of differences counts as far as the observed one.
        counts: [m·(m-1)/2] patterns so far that reached it, the observed one included.
    """

    near: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    threshold: Floats
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, table: Floats, flips: int) -> _Test:
        """Return the test of an [m, n] table, before any flip."""
        first, second = _pairs(len(table))
        differences, size = _differences(table), np.abs(table).sum(axis=1)
        # Equal sums differ by rounding: of the differences, and of the methods' sums that are subtracted.
        rounding = 1e-9 * np.abs(differences).sum(axis=1) + 1e-12 * (size[first] + size[second])
        threshold = np.abs(differences.sum(axis=1)) - rounding
        # Hoeffding's inequality: a random sum of ±d is that far with a probability of at most 2·exp(-t² / (2·Σd²)).
        # Pairs for which less than a billionth of a pattern is expected are not counted, most in a typical table.
        clear = np.maximum(threshold, 0) ** 2 > 2 * np.square(differences).sum(axis=1) * math.log(2e9 * flips)
        near = np.flatnonzero(~clear)
        return cls(near, first[near], second[near], threshold[near, None], np.ones(len(first), dtype=np.int64))


def _paired_t_p(differences: Floats) -> Floats:
    """Return the two-sided p-values of the paired t test of [k, n] differences."""
    from scipy.special import stdtr  # imports in a tenth of the time of scipy.stats

    episodes = differences.shape[1]
    mean, error = np.abs(differences.mean(axis=1)), differences.std(axis=1, ddof=1) / episodes**0.5
    statistic = np.divide(mean, error, out=np.full(len(mean), np.inf), where=error > 0)
    p: Floats = 2 * stdtr(episodes - 1, -statistic)
    p[(error == 0) & (mean == 0)] = 1.0
    return p


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjust p-values for the number of comparisons (Holm 1979).

    The chance of any false positive among all comparisons is then at most that of a single comparison.

    Args:
        p_values: [k] p-values of all comparisons.

    Returns:
        [k] adjusted p-values.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def settled_by(difference: float, std: float, level: float = ALPHA) -> int | None:
    """Return the episodes needed to find a difference.

    Args:
        difference: observed mean difference, taken as the true one.
        std: standard deviation of the per-episode differences.
        level: significance level of the two-sided test.

    Returns:
        The episodes that find the difference with a chance of `POWER`, at least 2; None where the difference is 0.
    """
    if abs(difference) <= 1e-9:  # 0 but for rounding
        return None
    return max(2, math.ceil((_quantiles(level) * std / difference) ** 2))


def _quantiles(level: float) -> float:
    """Return the standard errors by which a difference is found with a chance of `POWER`."""
    return t_quantile(_INFINITE_FREEDOM, 1 - level / 2) + t_quantile(_INFINITE_FREEDOM, POWER)
