"""Cut records to the first episodes that all methods of a comparison have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from metabench.analysis.bootstrap import pooled_interval
from metabench.analysis.estimates import estimate_of_mean
from metabench.analysis.metrics import own_metric
from metabench.analysis.stats import DataIntervals, Floats
from metabench.errors import UsageError
from metabench.records.record import Estimate, Record


class Figures(Protocol):
    """Reads the per-episode results of records, e.g. `metabench.records.runs.Runs`."""

    def figures(self, record: Record, metric: str) -> Floats:
        """Return the [n] or [n, k] figures of a metric, of as many episodes as the record has."""

    def alone(self, record: Record) -> Floats | None:
        """Return the [k] values of the first episodes with each query on its own; None where unknown."""

    def groups(self, record: Record) -> npt.NDArray[np.int64]:
        """Return the [n, N] groups of each episode's classes."""


def episodes_of(record: Record) -> str:
    """Return a key of records whose test episodes are the first ones of the same sequence.

    The key is the record's; for a record of 0.1, all settings that determined the episodes.
    """
    if record.data:
        return record.data.episodes
    dataset = {key: record.identity.get("dataset", {}).get(key) for key in ("name", "params")}
    seed = record.identity.get("test", {}).get("seed")
    settings = [seed, record.way, record.shot, record.queries, dataset, record.dataset_fingerprint]
    return json.dumps(settings, sort_keys=True)


def on_common_episodes(records: Iterable[Record], results: Figures) -> list[Record]:
    """Return the records with metrics over the first episodes that all of one table have.

    Args:
        records: the records; those that are not ok stay as they are.
        results: reads their per-episode results.
    """
    chosen = list(records)
    fewest: dict[tuple[str, str, int, int, str], int] = {}
    for record in chosen:
        if record.primary:
            fewest[_key(record)] = min(record.primary.episodes, fewest.get(_key(record), record.primary.episodes))
    return [first_episodes(record, fewest[_key(record)], results) if record.primary else record for record in chosen]


def first_episodes(record: Record, count: int, results: Figures) -> Record:
    """Return a record that is ok with metrics over its first `count` episodes."""
    assert record.primary is not None, "a record that is ok has a metric"
    if record.primary.episodes <= count:
        return record
    data = DataIntervals(results.groups(record)[:count])
    metrics = {
        name: estimate and _estimate(name, results.figures(record, name)[:count], data)
        for name, estimate in record.metrics.items()
    }
    alone = record.inductive_accuracy
    if record.transductive is False:
        alone = metrics[record.ranked_by]
    elif alone is not None and alone.episodes > count:
        values = results.alone(record)
        alone = None if values is None else estimate_of_mean(values[:count], data)
    return record.model_copy(update={"metrics": metrics, "inductive_accuracy": alone})


def _estimate(name: str, figures: Floats, data: DataIntervals) -> Estimate | None:
    """Return the estimate of a metric; None for a pooled one of a plugin."""
    if figures.ndim == 1:
        return estimate_of_mean(figures, data)
    try:
        metric = own_metric(name)
    except UsageError:
        return None
    interval = pooled_interval(metric, figures)
    return Estimate(value=interval.mean, ci95=interval.ci95, episodes=interval.episodes)


def _key(record: Record) -> tuple[str, str, int, int, str]:
    return record.dataset, record.backbone, record.way, record.shot, episodes_of(record)
