"""The training and the test of a cell: lengths, times, weights and what they used."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, Field

from metabench.records.values import Cost, Count, Line, Part


class Validation(Part):
    """One point of the validation curve.

    Attributes:
        step: outer updates made so far.
        value: mean of the metric that ranks over the validation episodes; ``accuracy`` in earlier records.
    """

    step: Count
    value: float = Field(validation_alias=AliasChoices("value", "accuracy"))


class Usage(Part):
    """What a training or a test used, all of it (`metabench.machine.meter`).

    Attributes:
        cpu_seconds: processor time of all threads of its process.
        wall_seconds: its time.
        cpu_joules: energy of the processor packages in that time, that of other programs included (RAPL); None where
            the machine does not report it.
        gpu_joules: energy of the GPU, likewise (NVML).
    """

    cpu_seconds: Cost
    wall_seconds: Cost
    cpu_joules: Cost | None = None
    gpu_joules: Cost | None = None


class TrainMetrics(Part):
    """Metrics of the training.

    Attributes:
        steps: number of outer updates.
        episodes: number of training episodes; 0 of an algorithm that trains on images.
        images: number of training images, counted each time, of an algorithm that trains on images.
        seconds: time of outer updates and their data, without validation, checkpoints and warm-up steps.
        episodes_per_second: training episodes per second of `seconds`; None where every step was warm-up.
        images_per_second: the same of training images.
        best_step: step of the tested weights, chosen by validation.
        validation: the validation curve.
        timed: whether a budget of seconds ended the training, so that its length depends on the machine.
        usage: what the whole training used, validation included; None in records of earlier versions.
    """

    steps: Annotated[int, Field(ge=1, lt=2**63)]
    episodes: Count
    images: Count = 0
    seconds: Cost
    episodes_per_second: Cost | None
    images_per_second: Cost | None = None
    best_step: Count
    validation: list[Validation]
    timed: bool = False
    usage: Usage | None = None

    @property
    def validation_value(self) -> float | None:
        """Return the metric that ranks in the validation of the tested weights; None without validation."""
        return next((point.value for point in self.validation if point.step == self.best_step), None)


class Weights(Part):
    """The tested weights.

    Attributes:
        file: name of their file in ``weights/``.
        sha256: hash of the file.
        selected_for: shape of the validation episodes that selected them, where the test has another; else empty.
    """

    file: Line
    sha256: Line
    selected_for: Line = ""


class Latency(Part):
    """Milliseconds from one episode's tensors to its predictions.

    Attributes:
        p50: median over single episodes.
        p95: 95th percentile.
    """

    p50: Cost
    p95: Cost


class EvalMetrics(Part):
    """Metrics of the test.

    Attributes:
        seconds: time of the test, data included, without a warm-up batch; of a test that has grown, its last part.
        episodes_per_second: test episodes per second of `seconds`; None where no time was measured.
        batch: number of episodes predicted at once.
        latency_ms: latency of one episode.
        adapt_ms: its part until the algorithm has adapted; None if the backbone embeds support and queries together.
        answer_ms: its part from then on, for all queries.
        usage: what the whole test used, controls and latencies included; of a test that has grown, its last part. None
            in records of earlier versions.
    """

    seconds: Cost
    episodes_per_second: Cost | None
    batch: Count | None = None
    latency_ms: Latency
    adapt_ms: Latency | None = None
    answer_ms: Latency | None = None
    usage: Usage | None = None
