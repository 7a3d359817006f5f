"""Two methods on the same episodes: the difference, its intervals, how sure it is, and what would settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metabench.analysis.stats import DataIntervals, Floats, mean_interval, t_below, t_quantile

#: Random sign flips of a test.
FLIPS = 10_000
#: Differences with a Holm-adjusted p above this are ties.
ALPHA = 0.05
#: The chance of telling two methods apart for which `settled_by` asks.
POWER = 0.8
#: Sign flips that are in memory at once.
_AT_ONCE = 1000
#: Degrees of freedom at which Student's t is the normal distribution.
_MANY = 10**9


@dataclass(frozen=True)
class PairedDifference:
    """One method's accuracy less another's, on identical episodes.

    Attributes:
        difference: of the means.
        ci95: half its 95 % interval over episodes (Student t on the per-episode differences).
        data_ci95: half its 95 % interval about the data, see `metabench.analysis.stats.DataIntervals`.
        p: two-sided, by flipping the signs of the per-episode differences; where no flip reaches the
            difference, of the paired t test.
        p_holm: the same, adjusted for all pairs of methods of the table (Holm 1979), since the best was not
            chosen beforehand.
        settled_by: episodes that would tell the two apart in four of five tables, were the difference as seen;
            None where there is no difference at all.
    """

    difference: float
    ci95: float
    data_ci95: float | None
    p: float
    p_holm: float
    settled_by: int | None

    @property
    def tie(self) -> bool:
        """Return whether these episodes do not tell the two apart."""
        return self.p_holm > ALPHA


@dataclass(frozen=True)
class Contest:
    """Methods to be compared with one of them.

    Attributes:
        reference: [n] accuracies of the reference, one an episode.
        others: [n] accuracies of each other method on the same episodes.
        groups: [n, N] the classes of the episodes, for the interval about the data.
    """

    reference: Floats
    others: Sequence[Floats]
    groups: npt.NDArray[np.int64] | None = None


def compare(contests: Sequence[Contest]) -> list[list[PairedDifference]]:
    """Compare the methods of several tables, each with the reference of its table.

    Returns:
        For each contest, other less reference for each of its others; p is adjusted within the contest.

    Raises:
        ValueError: methods of a contest have not equally many episodes, or fewer than two.
    """
    rows = [[other - contest.reference for other in contest.others] for contest in contests]
    # All differences over equally many episodes are flipped together, which is most of the work.
    p_values: dict[tuple[int, int], float] = {}
    lengths = {len(row) for group in rows for row in group}
    for length in sorted(lengths):
        places = [(i, j) for i, group in enumerate(rows) for j, row in enumerate(group) if len(row) == length]
        p_values.update(zip(places, sign_flip_p(np.stack([rows[i][j] for i, j in places])), strict=True))
    found = []
    for i, (contest, group) in enumerate(zip(contests, rows, strict=True)):
        methods = len(group) + 1
        pairs = methods * (methods - 1) // 2
        p = [float(p_values[i, j]) for j in range(len(group))]
        data = None if contest.groups is None or not group else DataIntervals(contest.groups)
        found.append(
            [
                _difference(row, data, p_value, float(adjusted), pairs)
                for row, p_value, adjusted in zip(group, p, holm(p, pairs), strict=True)
            ]
        )
    return found


def _difference(row: Floats, data: DataIntervals | None, p: float, p_holm: float, pairs: int) -> PairedDifference:
    interval = mean_interval(row)
    about_data = None if data is None else data.ci95(row)
    settled = settled_by(interval.mean, interval.std, ALPHA / pairs)
    return PairedDifference(interval.mean, interval.ci95, about_data, p, p_holm, settled)


def sign_flip_p(differences: npt.ArrayLike, flips: int = FLIPS, seed: int = 0) -> Floats:
    """Return the two-sided p of each row of [A, n] paired differences.

    Where two methods are alike, a difference is as likely as its negative: p is the share of random sign
    patterns (the observed one counted in) whose mean is at least as far from 0. All rows share the patterns.
    """
    array = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    observed = np.abs(array.sum(axis=1))
    # Sums that differ by rounding alone are equal.
    threshold = observed - 1e-9 * np.abs(array).sum(axis=1)
    generator = np.random.default_rng(seed)
    reached = np.ones(len(array))
    for first in range(0, flips, _AT_ONCE):
        count = min(_AT_ONCE, flips - first)
        signs = generator.integers(0, 2, size=(count, array.shape[1]), dtype=np.int8) * 2.0 - 1.0
        reached += (np.abs(array @ signs.T) >= threshold[:, None]).sum(axis=1)
    p = reached / (flips + 1)
    rare = np.flatnonzero(reached == 1)  # the flips tell only that p is below one in `flips`
    p[rare] = [min(_paired_t_p(array[row]), p[row]) for row in rare]
    return np.asarray(p, dtype=np.float64)


def _paired_t_p(differences: Floats) -> float:
    interval = mean_interval(differences)
    if interval.std == 0:
        return 0.0 if interval.mean else 1.0
    return 2 * t_below(-abs(interval.mean) / interval.std * interval.episodes**0.5, interval.episodes - 1)


def holm(p_values: npt.ArrayLike, family: int | None = None) -> Floats:
    """Return p-values adjusted so that all comparisons together err at most as often as one alone (Holm 1979).

    Args:
        p_values: of some comparisons.
        family: how many comparisons there are in all, these among them; without it, these are all. The unseen ones
            are taken to be the less significant, which errs on the safe side.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * ((family or len(p)) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def settled_by(difference: float, std: float, level: float = ALPHA) -> int | None:
    """Return how many episodes tell a difference from 0 with a chance of `POWER`.

    Args:
        difference: as it was observed, and is taken to be.
        std: of the per-episode differences.
        level: of the two-sided test.
    """
    if abs(difference) <= 1e-9:  # rounding
        return None
    quantiles = t_quantile(_MANY, 1 - level / 2) + t_quantile(_MANY, POWER)
    return max(2, math.ceil((quantiles * std / difference) ** 2))
