"""Read records of versions 1 and 2."""

from __future__ import annotations

import re
from typing import Any

#: The field `device` of a record of version 1, which had no `machine`.
_DEVICE = re.compile(r"(?P<name>.*?)(, (?P<threads>\d+) threads?)?(, (?P<cells>\d+) cells at once)?", re.DOTALL)
#: The declaration of the accuracy in records of versions 1 and 2, which had no other metric.
_ACCURACY = {
    "title": "accuracy",
    "unit": "%",
    "scale": 100.0,
    "lowest": 0.0,
    "highest": 1.0,
    "summary": "mean over the test episodes",
}


def _estimate(accuracy: Any) -> Any:
    """Return an accuracy of version 1 or 2 as an estimate."""
    if not isinstance(accuracy, dict) or "mean" not in accuracy:
        return accuracy
    return {"value" if name == "mean" else name: value for name, value in accuracy.items()}


def with_metrics(data: Any) -> Any:
    """Return a record whose accuracy, of version 1 or 2, is a metric."""
    if not isinstance(data, dict) or data.get("schema_version") not in (1, 2):
        return data
    if "accuracy" not in data:
        return data
    data = {**data, "inductive_accuracy": _estimate(data.get("inductive_accuracy"))}
    accuracy = _estimate(data.pop("accuracy"))
    if accuracy is None:
        return data
    return {**data, "metrics": {"accuracy": accuracy}, "declarations": {"accuracy": _ACCURACY}}


def with_machine(data: Any) -> Any:
    """Return a record whose machine, of version 1, is read from its line for people."""
    if not isinstance(data, dict) or "machine" in data or not isinstance(data.get("device"), str):
        return data
    match = _DEVICE.fullmatch(data["device"])
    assert match is not None, "every part of the pattern is optional"
    environment = data.get("environment")
    cuda = isinstance(environment, dict) and bool(environment.get("cuda"))
    machine = {
        "kind": "cuda" if cuda else "cpu",
        "name": match["name"],
        "threads": match["threads"] and int(match["threads"]),
        "cells_at_once": int(match["cells"] or 1),
    }
    return {**data, "machine": machine}
