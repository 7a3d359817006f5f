"""Intervals about a method: over other training seeds and other episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metabench.analysis.stats import t_below, t_quantile

#: Fewest seeds of a claim about a method: with two, the interval has a coverage of 89 % only.
LEAST_SEEDS = 3
#: Least share of the residual mean square that counts as that of the seeds, see `crossed_interval`.
_LEAST_SHARE = 0.25
#: Weight of the seeds' mean square in the degrees of freedom, see `crossed_interval`.
_CAUTION = 1.5


@dataclass(frozen=True)
class CrossedInterval:
    """A mean over seeds and episodes, with its 95 % interval over both.

    Attributes:
        mean: mean over seeds and episodes.
        ci95: half the 95 % interval of the mean (Student t with `freedom` degrees of freedom).
        error: standard error of the mean.
        freedom: Satterthwaite's degrees of freedom.
        seed_variance: variance of the mean of one seed on these episodes, about that of all seeds.
        episode_variance: variance of the mean of infinitely many seeds, over other episodes.
    """

    mean: float
    ci95: float
    error: float
    freedom: float
    seed_variance: float
    episode_variance: float

    @property
    def p(self) -> float:
        """Return the two-sided p-value of the mean, of a difference of methods, from 0."""
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return 2 * t_below(-abs(self.mean) / self.error, self.freedom)


def crossed_interval(values: npt.ArrayLike) -> CrossedInterval:
    """Return the mean of the values of each seed in each episode, with its interval over seeds and episodes.

    Seeds and episodes are crossed random effects: value = mean + seed + episode + rest. With the mean squares A of
    seeds, B of episodes and R of the rest of the two-way analysis of variance, the variance of the mean is estimated by
    (A + B - R) / (seeds · episodes) (Searle, Casella & McCulloch 1992, chapter 4), and its degrees of freedom by
    Satterthwaite (1946). No effect has a negative variance: B counts as R at least, and A as a quarter of R, since with
    all of R the interval would cover 98 % where neither seeds nor episodes have an effect (docs/statistics.md).

    Args:
        values: [S, n] values, or differences of two methods trained with equal seeds, S ≥ 2 and n ≥ 2.

    Raises:
        ValueError: there are fewer than two seeds or episodes.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or min(array.shape) < 2:
        raise ValueError(f"an interval over seeds and episodes needs two of each, not {array.shape}")
    seeds, episodes = array.shape
    mean, of_seeds, of_episodes = float(array.mean()), array.mean(axis=1), array.mean(axis=0)
    rest = array - of_seeds[:, None] - of_episodes + mean
    a = episodes * float(of_seeds.var(ddof=1))
    b = seeds * float(of_episodes.var(ddof=1))
    r = float((rest**2).sum()) / ((seeds - 1) * (episodes - 1))
    episode = max(b - r, 0.0)
    square = max(a, _LEAST_SHARE * r) + episode
    uncertainty = _CAUTION * a**2 / (seeds - 1) + b**2 / (episodes - 1) + r**2 / ((seeds - 1) * (episodes - 1))
    freedom = max(square**2 / uncertainty, seeds - 1.0) if uncertainty else seeds - 1.0
    error = (square / array.size) ** 0.5
    return CrossedInterval(
        mean, t_quantile(freedom) * error, error, freedom, max(a, _LEAST_SHARE * r) / episodes, episode / array.size
    )
