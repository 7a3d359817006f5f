"""A record as the flat numbers and settings that experiment trackers take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Metrics of a record, by their dotted path in it (docs/records.md).
METRICS = (
    "accuracy.mean",
    "accuracy.ci95",
    "accuracy.data_ci95",
    "inductive_accuracy.mean",
    "train.episodes_per_second",
    "train.seconds",
    "train.best_step",
    "eval.episodes_per_second",
    "eval.latency_ms.p50",
    "eval.latency_ms.p95",
    "flops_per_episode",
    "peak_memory_bytes",
    "parameters",
)


def title(record: Mapping[str, Any]) -> str:
    """Return a name for the cell that tells it from the others of its run."""
    shape = f"{record['way']}-way-{record['shot']}-shot"
    return f"{record['algorithm']} {record['dataset']} {shape} {record['backbone']} seed {record['seed']}"


def metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return those of `METRICS` that the record has."""
    found = {path: _at(record, path) for path in METRICS}
    return {path: float(value) for path, value in found.items() if value is not None}


def validation(record: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Return (step, accuracy) of the validation curve."""
    train = record["train"]
    return [(point["step"], point["accuracy"]) for point in train["validation"]] if train else []


def settings(record: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return the identity of the cell, one plain value a dotted path."""
    return dict(_leaves(record["identity"], ""))


def _at(values: Mapping[str, Any], path: str) -> Any:
    found: Any = values
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str | int | float | bool]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value if isinstance(value, (str, int, float, bool)) else str(value)
