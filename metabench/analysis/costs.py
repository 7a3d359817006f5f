"""Costs of a record: throughput, latency, memory, operations; its validation; and where it ran."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from metabench.analysis.tables import Row, Table
from metabench.records.machines import Circumstances
from metabench.records.record import Record
from metabench.records.stages import Usage
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


def cpu_seconds(record: Record) -> float | None:
    """Return the processor seconds of training and test."""
    return _of_both(record, lambda usage: usage.cpu_seconds)


def wall_seconds(record: Record) -> float | None:
    """Return the seconds of training and test."""
    return _of_both(record, lambda usage: usage.wall_seconds)


def compute_seconds(record: Record) -> float | None:
    """Return the processor seconds of training and test; of a GPU, which has no such count, their seconds."""
    return wall_seconds(record) if record.machine.kind == "cuda" else cpu_seconds(record)


def joules(record: Record) -> float | None:
    """Return the joules of training and test that the device reported: of the GPU, or of the processor packages."""
    if record.machine.kind == "cuda":
        return _of_both(record, lambda usage: usage.gpu_joules)
    return _of_both(record, lambda usage: usage.cpu_joules)


def _of_both(record: Record, cost: Callable[[Usage], float | None]) -> float | None:
    """Return the sum of a cost of training and test; None where one of them is not known."""
    parts = [record.eval and record.eval.usage, *([record.train.usage] if record.train else [])]
    costs = [cost(part) if part else None for part in parts]
    known = [value for value in costs if value is not None]
    return sum(known) if len(known) == len(costs) else None


def points_per_minute(row: Row, chance: float | None) -> float | None:
    """Return the points above chance for each minute of `compute_seconds`."""
    seconds = mean_over_seeds(row, compute_seconds)
    if not seconds or row.primary is None or chance is None:
        return None
    return (row.primary.mean - chance) * 100 / (seconds / 60)


def on_the_front(table: Table) -> list[str]:
    """Return the names of the methods of a table that no other one beats in both the metric and `compute_seconds`.

    A method is compared with the methods of its machine and host only; floors are compared, too.
    """
    names = []
    for group in by_machine(table.rows, compute_seconds):
        found = [(row, seconds, row.primary.mean * row.metric.sign) for row, seconds in group if row.primary]
        names += [
            row.name
            for row, seconds, value in found
            if not any(
                other_seconds <= seconds and other >= value and (other_seconds, other) != (seconds, value)
                for _, other_seconds, other in found
            )
        ]
    return names


def by_machine(rows: Iterable[Row], cost: Cost) -> list[list[tuple[Row, float]]]:
    """Return the rows whose cost is known, with its mean over the seeds, by machine and host."""
    groups: dict[str, list[tuple[Row, float]]] = {}
    for row in rows:
        mean = mean_over_seeds(row, cost)
        if mean is not None:
            circumstances = row.records[0].circumstances
            key = f"{row.records[0].machine!r} {circumstances and circumstances.host}"
            groups.setdefault(key, []).append((row, mean))
    return list(groups.values())


def unlike_circumstances(records: Sequence[Record]) -> list[str]:
    """Return the reasons why the times of records cannot be compared with one another; none where they can."""
    reasons = []
    machines = sorted({str(record.machine) for record in records})
    if len(machines) > 1:
        reasons.append(f"machines ({'; '.join(machines)})")
    known = [record.circumstances for record in records if record.circumstances]
    hosts = sorted({one.host for one in known})
    if len(hosts) > 1:
        reasons.append(f"hosts ({', '.join(hosts)})")
    executors = sorted({one.executor for one in known if one.executor})
    if len(executors) > 1:
        reasons.append(f"executors ({', '.join(executors)})")
    return [*reasons, *unlike_loads(known)]


def unlike_loads(known: Sequence[Circumstances]) -> list[str]:
    """Return how niceness and load differ; none where they do not.

    Loads differ where one was more than the processors, and more than one above another: what runs beside a cell then
    takes time from it.
    """
    niceness = sorted({one.niceness for one in known if one.niceness is not None})
    nice = [f"niceness ({', '.join(map(str, niceness))})"] if len(niceness) > 1 else []
    return [*nice, *_unlike_numbers(known)]


def _unlike_numbers(known: Sequence[Circumstances]) -> list[str]:
    loads = [one.busiest for one in known if one.busiest is not None]
    if not loads or max(loads) <= min(loads) + 1:
        return []
    if not any(one.busiest and one.processors and one.busiest > one.processors for one in known):
        return []
    return [f"loads ({min(loads):.1f} to {max(loads):.1f})"]
