"""Standard errors of pooled metrics and of their differences, by a bootstrap over episodes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from metabench.analysis.stats import Floats, MeanInterval, t_quantile
from metabench.specs import Metric

_Key = TypeVar("_Key", bound=Hashable)

#: Number of resampled sets of episodes: the standard error is then known to 3.5 %.
RESAMPLES = 400
#: Sets of episodes held in memory at once.
_AT_ONCE = 50


def replicates(figures: Mapping[_Key, Floats], metrics: Mapping[_Key, Metric], seed: int = 0) -> dict[_Key, Floats]:
    """Return pooled metrics of resampled sets of episodes.

    The seed and the number of episodes determine the resampled episodes. Two methods with the same number of episodes
    are therefore resampled alike, and the difference of their replicates is a paired difference.

    Args:
        figures: by any key, [n, k] figures of the episodes; n is the same for all.
        metrics: by the same keys, the metrics that pool them.
        seed: seed of the resampling.

    Returns:
        By key, [RESAMPLES] values.
    """
    if not figures:
        return {}
    stacked = np.concatenate([np.asarray(values) for values in figures.values()], axis=1)
    ends = np.cumsum([values.shape[1] for values in figures.values()])[:-1]
    means = np.concatenate([counts @ stacked for counts in _resampled(len(stacked), seed)]) / len(stacked)
    return {
        key: np.array([metrics[key].pooled(row) for row in part])
        for key, part in zip(figures, np.split(means, ends, axis=1), strict=True)
    }


def pooled_interval(metric: Metric, figures: Floats) -> MeanInterval:
    """Return a pooled metric of [n, k] figures with its interval.

    `std` of the interval is the standard error times the square root of the number of episodes.
    """
    values = replicates({"": figures}, {"": metric})[""]
    return interval_of(metric.pooled(figures.mean(axis=0)), values, len(figures))


def pooled_difference(metric: Metric, old: Floats, new: Floats) -> MeanInterval:
    """Return the difference of a pooled metric on the same episodes, with its interval by a paired bootstrap.

    Args:
        metric: the metric.
        old: [n, k] figures of the episodes.
        new: [m, k] figures, to subtract `old` from. The common first episodes are compared.
    """
    n = min(len(old), len(new))
    figures = {"old": old[:n], "new": new[:n]}
    values = replicates(figures, dict.fromkeys(figures, metric))
    difference = metric.pooled(new[:n].mean(axis=0)) - metric.pooled(old[:n].mean(axis=0))
    return interval_of(difference, values["new"] - values["old"], n)


def interval_of(value: float, resampled: Floats, episodes: int) -> MeanInterval:
    """Return the interval of a value by its resampled values, as `pooled_interval`."""
    error = float(resampled.std(ddof=1))
    return MeanInterval(float(value), t_quantile(episodes - 1) * error, error * episodes**0.5, episodes)


class MeanOfSeeds(Metric):
    """The mean of a pooled metric over seeds, whose figures lie side by side.

    Args:
        metric: the metric.
        seeds: number of seeds.
    """

    def __init__(self, metric: Metric, seeds: int) -> None:
        self._metric, self._seeds = metric, seeds

    def pooled(self, means: Floats) -> float:
        """Return the metric from the [seeds · k] means of the figures."""
        return sum(self._metric.pooled(part) for part in np.split(means, self._seeds)) / self._seeds


def _resampled(episodes: int, seed: int) -> Iterator[Floats]:
    """Yield [c, n] counts of how often each episode is in each resampled set."""
    generator = np.random.default_rng(seed)
    rows = np.arange(_AT_ONCE)[:, None] * episodes
    for _ in range(0, RESAMPLES, _AT_ONCE):
        drawn = generator.integers(0, episodes, (_AT_ONCE, episodes)) + rows
        counts = np.bincount(drawn.ravel(), minlength=_AT_ONCE * episodes)
        yield counts.reshape(_AT_ONCE, episodes).astype(np.float64)
