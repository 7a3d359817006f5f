"""Costs of a record: throughput, latency, memory, operations; its validation; and where it ran."""

from __future__ import annotations

from collections.abc import Callable

from metabench.analysis.standings import Row
from metabench.records.record import Record
from metabench.text import visible

#: Reads a cost from a record; None where the record lacks it.
Cost = Callable[[Record], float | None]


def mean_over_seeds(row: Row, cost: Cost) -> float | None:
    """Return the mean cost over the training seeds that have it."""
    values = [value for value in map(cost, row.finished) if value is not None]
    return sum(values) / len(values) if values else None


def validation(record: Record) -> float | None:
    """Return the metric that ranks in the validation of the tested weights."""
    return record.train.validation_value if record.train else None


def eval_rate(record: Record) -> float | None:
    """Return the test episodes per second."""
    return record.eval.episodes_per_second if record.eval else None


def train_rate(record: Record) -> float | None:
    """Return the training episodes per second."""
    return record.train.episodes_per_second if record.train else None


def latency(record: Record) -> float | None:
    """Return the median latency in milliseconds."""
    return record.eval.latency_ms.p50 if record.eval else None


def slow_latency(record: Record) -> float | None:
    """Return the 95th percentile of the latency in milliseconds."""
    return record.eval.latency_ms.p95 if record.eval else None


def memory(record: Record) -> float | None:
    """Return the peak memory in MiB."""
    return record.peak_memory_bytes / 2**20 if record.peak_memory_bytes else None


def gflops(record: Record) -> float | None:
    """Return the GFLOP of an episode."""
    return record.flops_per_episode / 1e9 if record.flops_per_episode else None


def device(record: Record) -> str:
    """Return ``cuda`` or ``cpu``; ``unknown`` of results of other code."""
    return record.machine.kind


def precision(record: Record) -> str:
    """Return ``float32``, ``tf32`` or ``bf16``."""
    return visible(str(record.identity.get("precision", "float32")))
