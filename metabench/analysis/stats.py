"""Intervals of accuracies, each for a question of its own; imports no torch, and of scipy only what is light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeanInterval:
    """A mean and how well the episodes determine it.

    Attributes:
        mean: over the episodes.
        ci95: half the width of the 95 % interval of the mean (Student t, n - 1 degrees of freedom). It says
            how much the mean would move with other episodes of the same images, not with other images.
        std: standard deviation of the episodes (n - 1).
        episodes: n.
    """

    mean: float
    ci95: float
    std: float
    episodes: int


def mean_interval(values: npt.ArrayLike) -> MeanInterval:
    """Return the mean of per-episode accuracies with its interval over episodes.

    Args:
        values: [n] accuracies, n ≥ 2.

    Raises:
        ValueError: there are fewer than two values, so that no interval exists.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise ValueError("an interval needs at least two episodes")
    std = float(array.std(ddof=1))
    return MeanInterval(float(array.mean()), t_quantile(array.size - 1) * std / array.size**0.5, std, array.size)


class DataIntervals:
    """Intervals of means *about the data*: what other classes, other images and other episodes would do to them.

    They answer what resampling whole classes with their images would, from variance components. Two episodes that
    share a class are alike: they share its difficulty and its images. The variance of the mean is the sum of the
    covariances of all pairs of episodes, of each with itself and of each two for every class that they share
    (as in cluster-robust variances; Cameron, Gelbach & Miller 2011). The covariance that a shared class
    makes, σ², is estimated from the products of residuals of just these pairs. The degrees of freedom of t are
    Satterthwaite's (1946): few classes, or few episodes of each, leave σ² uncertain.

    Args:
        groups: [n, N] the classes of each episode; classes that are not independent (rotations of one
            character) carry the same number.
    """

    def __init__(self, groups: npt.ArrayLike) -> None:
        members = np.asarray(groups)
        self._episodes = len(members)
        _, group = np.unique(members, return_inverse=True)
        group = group.reshape(members.shape)
        width = int(group.max(initial=0)) + 1
        # Once each, though an episode may have a group twice.
        pairs = np.unique(np.arange(len(members))[:, None] * width + group)
        self._episode, self._group = np.divmod(pairs, width)
        self._counts = np.bincount(self._group)

    def ci95(self, values: npt.ArrayLike) -> float | None:
        """Return half the width of the 95 % interval.

        Args:
            values: [n] accuracies, or differences of two methods' accuracies on the same episodes.

        Returns:
            None where there are too few classes to tell: every episode has all or nearly all of them, or no
            two share one.
        """
        array, n = np.asarray(values, dtype=np.float64), self._episodes
        classes, way = len(self._counts), len(self._group) / max(1, n)
        pairs = float((self._counts * (self._counts - 1.0)).sum())  # (episode, other episode, class that they share)
        if n < 2 or classes <= way + 1 or not pairs:
            return None
        residuals = array - array.mean()
        variance = float(array.var(ddof=1))
        sums = np.bincount(self._group, residuals[self._episode])
        product = (float((sums**2).sum()) - float((residuals[self._episode] ** 2).sum())) / pairs
        # Residuals are taken from the mean of these classes and of these episodes, which both lower the products.
        unshrunk = classes * (classes - 1) / (classes - way) ** 2
        within = way * (1 - way / classes)  # the share of σ² that the variance of one episode has
        sigma2 = max(0.0, (product + variance / n) * unshrunk / (1 + within * unshrunk / n))
        weight = pairs / n**2
        of_mean = (variance + way**2 / classes * sigma2) / n + weight * sigma2
        # Chi-squared of C - 1 degrees of freedom, of which part is the noise of the episodes of a class.
        error = weight * (sigma2 + unshrunk * variance * classes / (n * way)) * math.sqrt(2 / (classes - 1))
        # The estimate cannot fall below the episodes' own part; half an error more gives the nominal coverage in
        # simulations of 20 to 400 classes (tests/test_stats.py), and too much where classes hardly differ.
        freedom = 2 * (of_mean / error + 0.5) ** 2 if error else classes - 1.0
        if freedom < 2:
            return None
        return t_quantile(freedom) * math.sqrt(of_mean)


def seed_ci95(means: Sequence[float]) -> float | None:
    """Return half the 95 % interval between training seeds (Student t over their means); None for a single seed."""
    return mean_interval(means).ci95 if len(means) > 1 else None


def t_quantile(degrees: float, probability: float = 0.975) -> float:
    """Return the quantile of Student's t."""
    from scipy.special import stdtrit  # a tenth of the import time of scipy.stats

    return float(stdtrit(degrees, probability))


def t_below(value: float, degrees: float) -> float:
    """Return the chance that Student's t is at most `value`."""
    from scipy.special import stdtr

    return float(stdtr(degrees, value))
