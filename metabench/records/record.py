"""The record of a cell, stored as JSON (docs/records.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:  # reading records must not import numpy
    import numpy as np
    import numpy.typing as npt

#: Version 2 added `Record.machine`; records of version 1 are read.
SCHEMA_VERSION = 2


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Accuracy(_Part):
    """Accuracy over the test episodes, as fractions.

    Attributes:
        mean: mean over the episodes.
        ci95: half the 95 % interval over episodes (`metabench.analysis.stats.MeanInterval`).
        std: standard deviation of the episodes.
        episodes: number of episodes.
        data_ci95: half the 95 % interval about the data (`metabench.analysis.stats.DataIntervals`); None where there
            are too few classes.
    """

    mean: float
    ci95: float
    std: float
    episodes: int
    data_ci95: float | None = None


class ClassAccuracy(_Part):
    """Accuracy on the queries of one test class.

    Attributes:
        name: name of the class.
        accuracy: fraction of its queries that were classified correctly.
        episodes: number of test episodes with this class.
    """

    name: str
    accuracy: float
    episodes: int


class Validation(_Part):
    """One point of the validation curve.

    Attributes:
        step: outer updates made so far.
        accuracy: mean accuracy over the validation episodes.
    """

    step: int
    accuracy: float


class TrainMetrics(_Part):
    """Metrics of the training.

    Attributes:
        steps: number of outer updates.
        episodes: number of training episodes.
        seconds: time of outer updates and their data, without validation, checkpoints and warm-up steps.
        episodes_per_second: training episodes per second of `seconds`; None where every step was warm-up.
        best_step: step of the tested weights, chosen by validation accuracy.
        validation: the validation curve.
    """

    steps: int
    episodes: int
    seconds: float
    episodes_per_second: float | None
    best_step: int
    validation: list[Validation]


class Latency(_Part):
    """Milliseconds from one episode's tensors to its predictions.

    Attributes:
        p50: median over single episodes.
        p95: 95th percentile.
    """

    p50: float
    p95: float


class EvalMetrics(_Part):
    """Metrics of the test.

    Attributes:
        seconds: time of the test, data included, without a warm-up batch.
        episodes_per_second: test episodes per second of `seconds`; None where no time was measured.
        batch: number of episodes predicted at once.
        latency_ms: latency of one episode.
    """

    seconds: float
    episodes_per_second: float | None
    batch: int | None = None
    latency_ms: Latency


@dataclass(frozen=True)
class EpisodeResults:
    """Per-episode results of a cell's test, in episode order.

    Attributes:
        accuracies: [n] accuracy of each episode.
        groups: [n, N] groups (`metabench.api.Split.groups`) of each episode's classes.
    """

    accuracies: npt.NDArray[np.float64]
    groups: npt.NDArray[np.int64]


class Machine(_Part):
    """The machine and its share that a cell had; costs are compared between equal machines only.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``.
        name: name of the processor or the GPU.
        threads: threads that torch computed in, on a CPU; None on a GPU.
        cells_at_once: number of cells that ran at the same time.
    """

    kind: Literal["cpu", "cuda"]
    name: str
    threads: int | None = None
    cells_at_once: int = 1

    def __str__(self) -> str:
        """Return a line for people, e.g. ``"AMD EPYC, 2 threads, 2 cells at once"``."""
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads != 1 else ''}"
        return self.name + threads + (f", {self.cells_at_once} cells at once" if self.cells_at_once > 1 else "")


#: The field `device` of a record of version 1, which had no `machine`.
_DEVICE = re.compile(r"(?P<name>.*?)(, (?P<threads>\d+) threads?)?(, (?P<cells>\d+) cells at once)?", re.DOTALL)


class Record(_Part):
    """Settings, status, metrics and environment of one cell."""

    schema_version: int = SCHEMA_VERSION
    cell: str
    suite: str
    profile: str
    algorithm: str
    dataset: str
    backbone: str
    way: int
    shot: int
    queries: int
    seed: int
    identity: dict[str, Any]
    status: Literal["ok", "failed"]
    error: str | None = None
    accuracy: Accuracy | None = None
    inductive_accuracy: Accuracy | None = None
    transductive: bool | None = None
    worst_classes: list[ClassAccuracy] = []
    remarks: list[str] = []
    train: TrainMetrics | None = None
    eval: EvalMetrics | None = None
    flops_per_episode: int | None = None
    peak_memory_bytes: int | None = None
    parameters: int | None = None
    device: str
    machine: Machine
    dataset_fingerprint: str
    environment: dict[str, Any]
    finished: str

    @model_validator(mode="before")
    @classmethod
    def _read_version_1(cls, data: Any) -> Any:
        """Read the machine of a record of version 1 from its line for people."""
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
