"""Standard errors of pooled metrics and of their differences, by a bootstrap over episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from metabench.analysis.stats import Floats, MeanInterval, t_quantile
from metabench.specs import Metric

#: Number of resampled sets of episodes: the standard error is then known to 3.5 %.
RESAMPLES = 400
#: Sets of episodes held in memory at once.
_AT_ONCE = 50


def replicates(figures: Mapping[str, Floats], metrics: Mapping[str, Metric], seed: int = 0) -> dict[str, Floats]:
    """Return pooled metrics of resampled sets of episodes.

    Equal numbers of episodes are resampled alike, so that differences of replicates are those of the same episodes.

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


def pooled_difference(metric: Metric, old: Floats, new: Floats) -> MeanInterval:
    """Return the difference of a pooled metric on the same episodes.

    Args:
        metric: the metric.
        old: [n, k] figures of the episodes.
        new: [m, k] figures, to subtract `old` from. The common first episodes are compared.

    Returns:
        The difference with its interval, by a paired bootstrap; `std` is the standard error times the square root of
        the number of episodes.
    """
    n = min(len(old), len(new))
    figures = {"old": old[:n], "new": new[:n]}
    values = replicates(figures, dict.fromkeys(figures, metric))
    error = float((values["new"] - values["old"]).std(ddof=1))
    difference = metric.pooled(new[:n].mean(axis=0)) - metric.pooled(old[:n].mean(axis=0))
    return MeanInterval(float(difference), t_quantile(n - 1) * error, error * n**0.5, n)


def _resampled(episodes: int, seed: int) -> Iterator[Floats]:
    """Yield [c, n] counts of how often each episode is in each resampled set."""
    generator = np.random.default_rng(seed)
    rows = np.arange(_AT_ONCE)[:, None] * episodes
    for _ in range(0, RESAMPLES, _AT_ONCE):
        drawn = generator.integers(0, episodes, (_AT_ONCE, episodes)) + rows
        counts = np.bincount(drawn.ravel(), minlength=_AT_ONCE * episodes)
        yield counts.reshape(_AT_ONCE, episodes).astype(np.float64)
