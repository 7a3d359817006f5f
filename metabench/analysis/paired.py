"""Compare two methods on the same episodes.

Computes the mean difference, its intervals, its p-value, and the number of episodes that would settle a tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metabench.analysis.stats import DataIntervals, Floats, mean_interval, t_below, t_quantile

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
        ci95: half the 95 % interval over episodes (Student t on the per-episode differences).
        data_ci95: half the 95 % interval about the data (`metabench.analysis.stats.DataIntervals`); None where there
            are too few classes.
        p: two-sided p-value by random sign flips of the per-episode differences; where no flip reaches the observed
            difference, the p-value of the paired t test, if smaller.
        p_holm: `p` adjusted for all pairs of methods in the table (Holm 1979), because the best method was not chosen
            beforehand.
        settled_by: episodes needed to find a difference of this size with a chance of `POWER`; None where the
            difference is 0.
    """

    difference: float
    ci95: float
    data_ci95: float | None
    p: float
    p_holm: float
    settled_by: int | None

    @property
    def tie(self) -> bool:
        """Return whether the difference is not significant."""
        return self.p_holm > ALPHA


@dataclass(frozen=True)
class Contest:
    """A reference method and the methods compared with it.

    Attributes:
        reference: [n] per-episode accuracies of the reference.
        others: for each other method, [n] accuracies on the same episodes.
        groups: [n, N] groups of the episodes' classes; None leaves out the intervals about the data.
    """

    reference: Floats
    others: Sequence[Floats]
    groups: npt.NDArray[np.int64] | None = None


def compare(contests: Sequence[Contest]) -> list[list[PairedDifference]]:
    """Compare the methods of each table with its reference.

    Returns:
        For each contest, one difference (other minus reference) per other method; p-values are adjusted within the
        contest.

    Raises:
        ValueError: methods of a contest have different numbers of episodes, or fewer than two.
    """
    differences = [[other - contest.reference for other in contest.others] for contest in contests]
    # Sign flips are most of the work: flip all differences over equally many episodes together.
    p_values: dict[tuple[int, int], float] = {}
    lengths = {len(row) for rows in differences for row in rows}
    for length in sorted(lengths):
        places = [(i, j) for i, rows in enumerate(differences) for j, row in enumerate(rows) if len(row) == length]
        p_values.update(zip(places, sign_flip_p(np.stack([differences[i][j] for i, j in places])), strict=True))
    compared = []
    for i, (contest, rows) in enumerate(zip(contests, differences, strict=True)):
        methods = len(rows) + 1
        pairs = methods * (methods - 1) // 2
        p = [float(p_values[i, j]) for j in range(len(rows))]
        data = None if contest.groups is None or not rows else DataIntervals(contest.groups)
        compared.append(
            [
                _difference(row, data, p_value, float(adjusted), pairs)
                for row, p_value, adjusted in zip(rows, p, holm(p, pairs), strict=True)
            ]
        )
    return compared


def _difference(row: Floats, data: DataIntervals | None, p: float, p_holm: float, pairs: int) -> PairedDifference:
    interval = mean_interval(row)
    data_ci95 = None if data is None else data.ci95(row)
    episodes = settled_by(interval.mean, interval.std, ALPHA / pairs)
    return PairedDifference(interval.mean, interval.ci95, data_ci95, p, p_holm, episodes)


def sign_flip_p(differences: npt.ArrayLike, flips: int = FLIPS, seed: int = 0) -> Floats:
    """Return two-sided sign-flip p-values of paired differences.

    If two methods are equally good, a difference is as likely as its negative. p is the share of random sign patterns,
    the observed one included, whose mean is at least as far from 0. Where no random pattern is, p is the smaller of
    that share and the p-value of the paired t test.

    Args:
        differences: [A, n] per-episode differences; all rows share the sign patterns.
        flips: number of random sign patterns.
        seed: seed of the patterns.

    Returns:
        [A] p-values.
    """
    array = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    observed = np.abs(array.sum(axis=1))
    # Count sums that differ by rounding alone as equal.
    threshold = observed - 1e-9 * np.abs(array).sum(axis=1)
    generator = np.random.default_rng(seed)
    reached = np.ones(len(array))
    for first in range(0, flips, _FLIPS_AT_ONCE):
        count = min(_FLIPS_AT_ONCE, flips - first)
        signs = generator.integers(0, 2, size=(count, array.shape[1]), dtype=np.int8) * 2.0 - 1.0
        reached += (np.abs(array @ signs.T) >= threshold[:, None]).sum(axis=1)
    p = reached / (flips + 1)
    rare = np.flatnonzero(reached == 1)  # sign flips only show that p is below 1 / flips
    p[rare] = [min(_paired_t_p(array[row]), p[row]) for row in rare]
    return np.asarray(p, dtype=np.float64)


def _paired_t_p(differences: Floats) -> float:
    interval = mean_interval(differences)
    if interval.std == 0:
        return 0.0 if interval.mean else 1.0
    return 2 * t_below(-abs(interval.mean) / interval.std * interval.episodes**0.5, interval.episodes - 1)


def holm(p_values: npt.ArrayLike, family: int | None = None) -> Floats:
    """Adjust p-values for the number of comparisons (Holm 1979).

    The chance of any false positive among all comparisons is then at most that of a single comparison.

    Args:
        p_values: [k] p-values.
        family: total number of comparisons, including these k; None means k. The unseen comparisons are assumed to be
            less significant, which is conservative.

    Returns:
        [k] adjusted p-values.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * ((family or len(p)) - np.arange(len(p))))
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
    quantiles = t_quantile(_INFINITE_FREEDOM, 1 - level / 2) + t_quantile(_INFINITE_FREEDOM, POWER)
    return max(2, math.ceil((quantiles * std / difference) ** 2))
