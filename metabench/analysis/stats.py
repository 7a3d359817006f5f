"""Confidence intervals of accuracies: over episodes, data and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MeanInterval:
    """A mean over episodes with its 95 % interval.

    Attributes:
        mean: mean over the episodes.
        ci95: half the 95 % interval of the mean (Student t, n - 1 degrees of freedom). The interval covers other
            episodes of the same images, not other images.
        std: standard deviation of the episodes (divisor n - 1).
        episodes: number of episodes n.
    """

    mean: float
    ci95: float
    std: float
    episodes: int


def mean_interval(values: npt.ArrayLike) -> MeanInterval:
    """Return the mean of per-episode values with its interval.

    Args:
        values: [n] accuracies or differences, n ≥ 2.

    Raises:
        ValueError: there are fewer than two values.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise ValueError(f"an interval needs at least two episodes, not {array.size}")
    std = float(array.std(ddof=1))
    return MeanInterval(float(array.mean()), t_quantile(array.size - 1) * std / array.size**0.5, std, array.size)


class DataIntervals:
    """Intervals *about the data*: over other classes, images and episodes.

    The intervals estimate, from variance components, how the mean would vary if whole classes with their images were
    sampled again. Episodes that share a class are correlated, because they share its difficulty and its images. The
    variance of the mean sums the covariances of all pairs of episodes: each episode with itself, and each pair once for
    every shared class (as in cluster-robust variances; Cameron, Gelbach & Miller 2011). The covariance σ² of a shared
    class is estimated from the products of residuals of the pairs that share one. The degrees of freedom of t follow
    Satterthwaite (1946), because σ² is uncertain with few classes, or few episodes of each.

    Args:
        groups: [n, N] classes of each episode; classes that are not independent (rotations of one character) have the
            same number.
    """

    def __init__(self, groups: npt.ArrayLike) -> None:
        members = np.asarray(groups)
        self._episodes = len(members)
        _, group = np.unique(members, return_inverse=True)
        group = group.reshape(members.shape)
        width = int(group.max(initial=0)) + 1
        # Count each group once per episode, though several of its classes may be in one.
        pairs = np.unique(np.arange(len(members))[:, None] * width + group)
        self._episode, self._group = np.divmod(pairs, width)
        self._counts = np.bincount(self._group)

    def ci95(self, values: npt.ArrayLike) -> float | None:
        """Return half the 95 % interval of the mean.

        Args:
            values: [n] accuracies, or differences of two methods' accuracies on the same episodes.

        Returns:
            Half the interval; None where the data cannot determine it, because every episode has (nearly) all classes,
            or no two episodes share a class.
        """
        array, n = np.asarray(values, dtype=np.float64), self._episodes
        classes, way = len(self._counts), len(self._group) / max(1, n)
        pairs = float((self._counts * (self._counts - 1.0)).sum())  # (episode, other episode, shared class)
        if n < 2 or classes <= way + 1 or not pairs:
            return None
        residuals = array - array.mean()
        variance = float(array.var(ddof=1))
        sums = np.bincount(self._group, residuals[self._episode])
        product = (float((sums**2).sum()) - float((residuals[self._episode] ** 2).sum())) / pairs
        # Residuals are relative to the mean of these classes and episodes; both lower the products, so correct them.
        unshrunk = classes * (classes - 1) / (classes - way) ** 2
        within = way * (1 - way / classes)  # share of σ² in the variance of one episode
        sigma2 = max(0.0, (product + variance / n) * unshrunk / (1 + within * unshrunk / n))
        weight = pairs / n**2
        of_mean = (variance + way**2 / classes * sigma2) / n + weight * sigma2
        # Standard error of the class part: chi-squared with C - 1 degrees of freedom, plus the noise of the episodes.
        error = weight * (sigma2 + unshrunk * variance * classes / (n * way)) * math.sqrt(2 / (classes - 1))
        # The estimate cannot fall below the episodes' own part. Adding half an error gives the nominal coverage in
        # simulations of 20 to 400 classes (tests/analysis/test_stats.py), and more where classes hardly differ.
        freedom = 2 * (of_mean / error + 0.5) ** 2 if error else classes - 1.0
        if freedom < 2:
            return None
        return t_quantile(freedom) * math.sqrt(of_mean)


def seed_ci95(means: Sequence[float]) -> float | None:
    """Return half the 95 % interval between training seeds.

    Args:
        means: mean accuracy of each seed.

    Returns:
        Half the interval (Student t over the means); None for a single seed.
    """
    return mean_interval(means).ci95 if len(means) > 1 else None


@cache  # leaderboards ask for few different quantiles, tens of thousands of times
def t_quantile(degrees: float, probability: float = 0.975) -> float:
    """Return a quantile of Student's t."""
    from scipy.special import stdtrit  # imports in a tenth of the time of scipy.stats

    return float(stdtrit(degrees, probability))


def t_below(value: float, degrees: float) -> float:
    """Return the probability that Student's t is at most `value`."""
    from scipy.special import stdtr

    return float(stdtr(degrees, value))
