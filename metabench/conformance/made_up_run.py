"""Suite and records of a run that never took place, as loggers get them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metabench.analysis.metrics import CLASSIFICATION
from metabench.planning.suite import Suite
from metabench.records.record import Record

#: Name of the suite, by which test records in a tracker are recognised.
SUITE = "plugin-check"

_STEPS = 20
#: Outer updates and accuracies of the validations.
_VALIDATION = ((10, 0.45), (20, 0.525))
#: What a training and a test used: joules are known of some devices only.
_USAGE = {"cpu_seconds": 0.75, "wall_seconds": 0.5, "cpu_joules": 4.5}
#: Where the cells ran, and beside what.
_CIRCUMSTANCES = {"host": "a-host", "processors": 2, "niceness": 0, "load_start": 0.5, "load_end": 1.5}


def settings() -> dict[str, Any]:
    """Return the resolved suite of two algorithms."""
    suite = Suite.model_validate(
        {
            "name": SUITE,
            "description": "Made up by the checks of a logger.",
            "datasets": {"images": {}},
            "backbones": {"network": {"params": {"channels": 4}}},
            "algorithms": {"sound": {}, "diverging": {"params": {"lr": 1e30}}},
            "ways": [5],
            "shots": [1],
            "train": {"steps": _STEPS, "validate_every": 10},
            "eval": {"episodes": 40},
        }
    )
    return suite.model_dump(mode="json", exclude={"profile"})


def finished(at: str = "2025-01-01T00:00:00+00:00") -> dict[str, Any]:
    """Return the record of a cell with all its results.

    Args:
        at: the time at which the cell finished, in ISO 8601.
    """
    accuracy = {"value": 0.5, "ci95": 0.03, "std": 0.1, "episodes": 40, "data_ci95": 0.04}
    return _record(
        "sound",
        {"lr": 0.001, "clip": None},
        status="ok",
        metrics={measure.name: accuracy for measure in CLASSIFICATION},
        declarations={measure.name: measure.declaration for measure in CLASSIFICATION},
        temperature={"value": 1.5, "episodes": 20},
        inductive_accuracy=accuracy,
        transductive=False,
        worst_classes=[{"name": "ă/%:\\ 7", "accuracy": 0.25, "episodes": 9}],
        remarks=["accuracies of all episodes are alike"],
        train={
            "steps": _STEPS,
            "episodes": _STEPS,
            "seconds": 0.5,
            "episodes_per_second": 40.0,
            "best_step": _STEPS,
            "validation": [{"step": step, "accuracy": accuracy} for step, accuracy in _VALIDATION],
            "usage": _USAGE,
        },
        weights={"file": "0123456789abcdef-last.safetensors", "sha256": "0" * 64},
        eval={
            "seconds": 0.25,
            "episodes_per_second": 160.0,
            "batch": 8,
            "latency_ms": {"p50": 1.5, "p95": 2.5},
            "adapt_ms": {"p50": 0.5, "p95": 1.0},
            "answer_ms": {"p50": 1.0, "p95": 1.5},
            "usage": _USAGE,
        },
        flops_per_episode=10**9,
        peak_memory_bytes=2**28,
        parameters=1234,
        all_parameters=1234,
        finished=at,
    )


def failed(error: str | None = "CellFailed: the loss is nan in step 3: use a smaller lr") -> dict[str, Any]:
    """Return the record of a cell that failed."""
    return _record("diverging", {"lr": 1e30, "clip": None}, status="failed", error=error)


def sparse() -> list[dict[str, Any]]:
    """Return records in which as much is missing as may be."""
    accuracy = {"value": 0.5, "ci95": 0.03, "std": 0.1, "episodes": 40}
    declarations = {measure.name: measure.declaration for measure in CLASSIFICATION[:2]}
    results = {"metrics": {"accuracy": accuracy, "nll": None}, "declarations": declarations}
    untimed: dict[str, Any] = {"seconds": 0.0, "episodes_per_second": None}
    train = {**untimed, "steps": 1, "episodes": 1, "best_step": 0, "validation": []}
    test = {**untimed, "latency_ms": {"p50": 0.0, "p95": 0.0}}
    return [
        _record("untrained", {}, status="ok", data=None, **results),
        _record("untimed", {}, status="ok", data=None, train=train, eval=test, **results),
        failed(error=None),
    ]


def _record(algorithm: str, params: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the record of an algorithm's cell, checked, as plain data."""
    shape = {"way": 5, "shot": 1, "queries": 15}
    chosen = {
        kind: {"label": name, "name": name, "params": dict(params)}
        for kind, name, params in (
            ("algorithm", algorithm, params),
            ("dataset", "images", {}),
            ("backbone", "network", {"channels": 4}),
        )
    }
    record = {
        "cell": algorithm.encode().hex().ljust(16, "0")[:16],
        "suite": SUITE,
        "profile": "",
        **{kind: choice["label"] for kind, choice in chosen.items()},
        **shape,
        "seed": 0,
        "identity": {
            **chosen,
            "shape": shape,
            "seed": 0,
            "train": {
                "steps": _STEPS,
                "meta_batch": 1,
                "shape": shape,
                "validate_every": 10,
                "validation_episodes": 100,
            },
            "test": {"seed": 0},
        },
        "device": "A processor, 2 threads",
        "machine": {"kind": "cpu", "name": "A processor", "threads": 2, "cells_at_once": 1},
        "dataset_fingerprint": "0" * 64,
        "data": {"episodes": "0" * 32, "raw_files": 0, "overlapping": False, "duplicates": {"test": 2}, "remarks": []},
        "environment": {"python": "3.11", "torch": "2.4", "cuda": None, "providers": {"algorithm": "made-up 1.0"}},
        "circumstances": _CIRCUMSTANCES,
        "finished": "2025-01-01T00:00:00+00:00",
        **fields,
    }
    return Record.model_validate(record).model_dump()
