"""Flatten a record into metrics and settings for experiment trackers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Fields of an estimate that are logged.
_ESTIMATE = ("value", "ci95", "data_ci95")
#: Dotted paths of further numbers in a record (docs/records.md).
NUMBERS = (
    "inductive_accuracy.value",
    "temperature.value",
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
    """Return the cell's title, which is unique in its run."""
    way = "" if record["task"] == "regression" else f"{record['way']}-way-"
    shape = f"{way}{record['shot']}-shot"
    return f"{record['algorithm']} {record['dataset']} {shape} {record['backbone']} seed {record['seed']}"


def metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a record, e.g. ``accuracy.value``, and its `NUMBERS`; without missing ones."""
    values = {
        f"{name}.{field}": _at(record, f"metrics.{name}.{field}") for name in record["metrics"] for field in _ESTIMATE
    }
    values |= {path: _at(record, path) for path in NUMBERS}
    return {path: float(value) for path, value in values.items() if value is not None}


def validation(record: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Return the (step, value) points of the validation curve."""
    train = record["train"]
    return [(point["step"], point["value"]) for point in train["validation"]] if train else []


def settings(record: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return the settings of the cell by dotted path."""
    return dict(_leaves(record["identity"], ""))


def _at(values: Mapping[str, Any], path: str) -> Any:
    value: Any = values
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str | int | float | bool]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value if isinstance(value, (str, int, float, bool)) else str(value)
