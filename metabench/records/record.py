"""What is known of a finished cell. Written as JSON; docs/records.md explains every name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:  # reading records needs no numpy
    import numpy as np
    import numpy.typing as npt

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Accuracy(_Part):
    """Accuracy over the test episodes, as fractions; `metabench.analysis.stats` says what each is."""

    mean: float
    ci95: float
    std: float
    episodes: int
    data_ci95: float | None = None


class ClassAccuracy(_Part):
    """Accuracy on the queries of one test class, over the episodes that it was in."""

    name: str
    accuracy: float
    episodes: int


class Validation(_Part):
    """Mean accuracy over the validation episodes after `step` outer updates."""

    step: int
    accuracy: float


class TrainFigures(_Part):
    """The training.

    Attributes:
        steps: outer updates made.
        episodes: training episodes seen.
        seconds: spent in outer updates and their data, without validation, checkpoints and warm-up steps.
        episodes_per_second: of those seconds; None where the training was as short as its warm-up.
        best_step: after which the tested weights were taken, chosen on the validation split.
        validation: the validation curve.
    """

    steps: int
    episodes: int
    seconds: float
    episodes_per_second: float | None
    best_step: int
    validation: list[Validation]


class Latency(_Part):
    """Milliseconds from one episode's tensors to its predictions, a batch of one: median and 95th percentile."""

    p50: float
    p95: float


class EvalFigures(_Part):
    """The test: episodes per second, data included, without a warm-up batch; and the latency of one episode.

    `batch` is how many episodes were predicted at once.
    """

    seconds: float
    episodes_per_second: float | None
    batch: int | None = None
    latency_ms: Latency


@dataclass(frozen=True)
class EpisodeResults:
    """What the test episodes of a cell gave, in their order.

    Attributes:
        accuracies: [n] one an episode.
        groups: [n, N] the groups (`metabench.api.Split`) of its classes.
    """

    accuracies: npt.NDArray[np.float64]
    groups: npt.NDArray[np.int64]


class Record(_Part):
    """One cell: what it was, how it went, and where."""

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
    train: TrainFigures | None = None
    eval: EvalFigures | None = None
    flops_per_episode: int | None = None
    peak_memory_bytes: int | None = None
    parameters: int | None = None
    device: str
    dataset_fingerprint: str
    environment: dict[str, Any]
    finished: str
