"""Estimate metrics, with their intervals, from the figures of episodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from metabench.analysis.bootstrap import interval_of, replicates
from metabench.analysis.metrics import Measure, by_name
from metabench.analysis.stats import DataIntervals, Floats, mean_interval
from metabench.records.measured import Estimate


def estimates(
    figures: Mapping[str, Floats], groups: npt.NDArray[np.int64], measures: Iterable[Measure]
) -> dict[str, Estimate | None]:
    """Return the estimate of each metric.

    Args:
        figures: by name of a metric, [n] or [n, k] figures of the episodes (`metabench.specs.Metric.of_episode`).
        groups: [n, N] groups of the episodes' classes (`metabench.api.Split.groups`).
        measures: the metrics.

    Returns:
        The estimates by name, in the order of `measures`; None without figures.
    """
    known = by_name(measures)
    # In one memory layout, so that sums have one order however the figures were joined.
    figures = {name: np.ascontiguousarray(values) for name, values in figures.items()}
    pooled = {name: values for name, values in figures.items() if values.ndim == 2}
    resampled = replicates(pooled, {name: known[name].metric for name in pooled})
    data = DataIntervals(groups)
    result: dict[str, Estimate | None] = {}
    for name, measure in known.items():
        if name not in figures:
            result[name] = None
        elif name in pooled:
            value = measure.metric.pooled(figures[name].mean(axis=0))
            interval = interval_of(value, resampled[name], len(figures[name]))
            result[name] = Estimate(value=interval.mean, ci95=interval.ci95, episodes=interval.episodes)
        else:
            result[name] = estimate_of_mean(figures[name], data)
    return result


def estimate_of_mean(values: Floats, data: DataIntervals) -> Estimate:
    """Return the estimate of a mean over [n] episodes."""
    interval = mean_interval(values)
    return Estimate(
        value=interval.mean,
        ci95=interval.ci95,
        std=interval.std,
        episodes=interval.episodes,
        data_ci95=data.ci95(values),
    )
