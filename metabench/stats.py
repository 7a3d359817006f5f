"""Statistics of per-episode accuracies; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
    """Return the mean of per-episode accuracies with its interval.

    Args:
        values: [n] accuracies, n ≥ 2.

    Raises:
        ValueError: there are fewer than two values, so that no interval exists.
    """
    from scipy.stats import t  # a second to import, and readers of stored records do not need it

    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise ValueError("an interval needs at least two episodes")
    std = float(array.std(ddof=1))
    half = float(t.ppf(0.975, array.size - 1)) * std / array.size**0.5
    return MeanInterval(float(array.mean()), half, std, int(array.size))
