"""The record of a cell, stored as JSON (docs/records.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

from metabench.records.tallies import Tallies
from metabench.specs import METRIC_NAME, TaskKind
from metabench.text import one_line, visible

if TYPE_CHECKING:  # reading records must not import numpy
    import numpy as np
    import numpy.typing as npt

#: The fields of a record that are not results.
SETTINGS = (
    *("schema_version", "cell", "suite", "profile", "algorithm", "dataset", "backbone", "way", "shot", "queries"),
    *("pretrained_on", "confirms", "external"),
    *("episodes_file", "seed", "identity", "task", "ranked_by", "device", "machine", "dataset_fingerprint"),
    *("environment", "finished", "circumstances", "suite_version", "invalidated", "trials"),
)

#: Version 2 added `Record.machine`, version 3 `Record.metrics` in place of the accuracy; earlier records are read.
SCHEMA_VERSION = 3
#: Largest difference of a value that counts as another order of summation.
ROUNDING = 1e-9
#: Parts of a cell's identity that other code looks into.
_NESTED = ("dataset", "test")


def _measurable(cost: float) -> float:
    if 0 < cost < 1e-9:
        raise ValueError("smaller than any clock can tell")
    return cost


#: A share of 1.
Share = Annotated[float, Field(ge=0, le=1)]
#: The width of an interval; over few episodes, it may exceed 1.
Width = Annotated[float, Field(ge=0)]
#: A time or rate: ratios and sums of them stay finite.
Cost = Annotated[float, Field(ge=0, le=1e12), AfterValidator(_measurable)]
#: A number of things.
Count = Annotated[int, Field(ge=0, lt=2**63)]
#: ok; failed or skipped, with the reason in `Record.error`; invalid, if the results of a stored record are wrong.
Status = Literal["ok", "failed", "skipped", "invalid"]
#: A text without control characters, so that tables, pages and messages can show it.
Text = Annotated[str, AfterValidator(visible)]
#: A text in one line.
Line = Annotated[str, AfterValidator(one_line)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


#: The name of a metric.
MetricName = Annotated[str, Field(pattern=METRIC_NAME, max_length=80)]


class Declaration(_Part):
    """What tables, plots and gates need to know of a metric; see `metabench.specs.MetricSpec`."""

    title: Line
    better: Literal["high", "low"] = "high"
    unit: Line = ""
    scale: Annotated[float, Field(gt=0)] = 1.0
    lowest: float | None = None
    highest: float | None = None
    summary: Line = ""

    @property
    def heading(self) -> str:
        """Return title and unit, e.g. ``"accuracy %"``."""
        return f"{self.title} {self.unit}".rstrip()

    @property
    def sign(self) -> int:
        """Return 1 where high values are better, -1 where low ones are."""
        return 1 if self.better == "high" else -1

    @property
    def bounds(self) -> str:
        """Return the bounds of the values as text."""
        low, high = self.lowest, self.highest
        if low is None or high is None:
            return "a number" + (
                f" from {low:g}" if low is not None else f" up to {high:g}" if high is not None else ""
            )
        return f"between {low:g} and {high:g}"

    def short(self, value: float) -> str:
        """Return title and value for a line of progress, e.g. ``"accuracy 81.20%"``."""
        scaled = value * self.scale
        return f"{self.title} {scaled:.2f}%" if self.unit == "%" else f"{self.title} {scaled:.3g} {self.unit}".rstrip()

    def admits(self, lowest: float, highest: float) -> bool:
        """Return whether values between two numbers are within the bounds; False for NaN."""
        above = -math.inf if self.lowest is None else self.lowest - ROUNDING
        below = math.inf if self.highest is None else self.highest + ROUNDING
        return above <= lowest and highest <= below


class Estimate(_Part):
    """A metric over the test episodes.

    Attributes:
        value: the mean over the episodes, or the metric pooled over the queries of all episodes.
        ci95: half the 95 % interval over episodes: Student t of the mean (`metabench.analysis.stats.MeanInterval`), or
            a bootstrap of a pooled metric (`metabench.analysis.bootstrap`).
        std: standard deviation of the episodes; None for a pooled metric.
        episodes: number of episodes.
        data_ci95: half the 95 % interval about the data (`metabench.analysis.stats.DataIntervals`); None where there
            are too few classes, and for a pooled metric.
    """

    value: float
    ci95: Width
    std: Width | None = None
    episodes: Annotated[int, Field(ge=2, lt=2**31)]
    data_ci95: Width | None = None

    @property
    def is_pooled(self) -> bool:
        """Return whether the metric has no value for an episode."""
        return self.std is None


class Temperature(_Part):
    """The temperature of the calibrated metrics, fitted on validation episodes.

    Attributes:
        value: the divisor of the scores.
        episodes: number of validation episodes.
    """

    value: Annotated[float, Field(gt=0)]
    episodes: Count


class ClassAccuracy(_Part):
    """Accuracy on the queries of one test class.

    Attributes:
        name: name of the class.
        accuracy: fraction of its queries that were classified correctly.
        episodes: number of test episodes with this class.
    """

    name: Text
    accuracy: Share
    episodes: Count


class Validation(_Part):
    """One point of the validation curve.

    Attributes:
        step: outer updates made so far.
        value: mean of the metric that ranks over the validation episodes; ``accuracy`` in earlier records.
    """

    step: Count
    value: float = Field(validation_alias=AliasChoices("value", "accuracy"))


class Usage(_Part):
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


class TrainMetrics(_Part):
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


class Weights(_Part):
    """The tested weights.

    Attributes:
        file: name of their file in ``weights/``.
        sha256: hash of the file.
        selected_for: the episodes by which the training selected them, if not those of the test; else empty.
    """

    file: Line
    sha256: Line
    selected_for: Line = ""


class Latency(_Part):
    """Milliseconds from one episode's tensors to its predictions.

    Attributes:
        p50: median over single episodes.
        p95: 95th percentile.
    """

    p50: Cost
    p95: Cost


class EvalMetrics(_Part):
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


@dataclass(frozen=True)
class Outputs:
    """The test outputs of a cell's first episodes, from which metrics can be computed later.

    Attributes:
        outputs: [n, M, N] log-probabilities in float16; -inf for an impossible class. Of a regression, [n, M, D]
            numbers in float32.
        targets: [n, M] labels; [n, M, D] numbers of a regression.
        values: [n] values of the metric that ranks, which show whose outputs they are.
    """

    outputs: npt.NDArray[np.floating[Any]]
    targets: npt.NDArray[Any]
    values: npt.NDArray[np.float64]

    def followed_by(self, later: Outputs) -> Outputs:
        """Return these outputs with those of the episodes after them."""
        import numpy as np

        return Outputs(*(np.concatenate(pair) for pair in zip(vars(self).values(), vars(later).values(), strict=True)))


@dataclass(frozen=True)
class EpisodeResults:
    """Per-episode results of a cell's test, in episode order.

    Attributes:
        figures: by name of a metric, [n] values of the episodes, or [n, k] figures of a pooled metric.
        groups: [n, N] groups (`metabench.api.Split.groups`) of each episode's classes; [n, 0] of a regression.
        alone: [k] values of the first k episodes of the metric that ranks, with each query answered on its own, of a
            transductive method; None where it was not measured, and for other methods, whose queries are alone anyway.
        by_class: [n, N] accuracy of each label of each episode; None in files of earlier versions, and of a regression.
        outputs: the outputs of the first episodes, which have a file of their own; None if they are not kept or read.
        tallies: totals by class, pair of classes and confidence; None in files of earlier versions, where they are not
            read, of a regression, and where ways vary.
    """

    figures: Mapping[str, npt.NDArray[np.float64]]
    groups: npt.NDArray[np.int64]
    alone: npt.NDArray[np.float64] | None = None
    by_class: npt.NDArray[np.float64] | None = None
    outputs: Outputs | None = None
    tallies: Tallies | None = None


class Machine(_Part):
    """The machine and its share that a cell had; costs are compared between equal machines only.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``; ``"unknown"`` of results of other code.
        name: name of the processor or the GPU.
        threads: threads that torch computed in, on a CPU; None on a GPU.
        cells_at_once: number of cells that ran at the same time.
    """

    kind: Literal["cpu", "cuda", "unknown"]
    name: Text
    threads: Count | None = None
    cells_at_once: Count = 1

    def __str__(self) -> str:
        """Return a line for people, e.g. ``"AMD EPYC, 2 threads, 2 cells at once"``."""
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads != 1 else ''}"
        return self.name + threads + (f", {self.cells_at_once} cells at once" if self.cells_at_once > 1 else "")


class Circumstances(_Part):
    """Where and beside what a cell ran: times of different hosts and loads are not compared without a remark.

    Attributes:
        host: name of the computer.
        processors: number of its processors.
        niceness: niceness of the process; None where the system has none.
        load_start: programs that ran or waited on the whole computer, mean of a minute, when the training began (the
            test, where its weights were there); None where the system does not say.
        load_end: the same when the test ended.
    """

    host: Text
    processors: Count | None = None
    niceness: int | None = None
    load_start: Annotated[float, Field(ge=0)] | None = None
    load_end: Annotated[float, Field(ge=0)] | None = None

    @property
    def busiest(self) -> float | None:
        """Return the larger load; None where neither is known."""
        return max((load for load in (self.load_start, self.load_end) if load is not None), default=None)


#: The field `device` of a record of version 1, which had no `machine`.
_DEVICE = re.compile(r"(?P<name>.*?)(, (?P<threads>\d+) threads?)?(, (?P<cells>\d+) cells at once)?", re.DOTALL)


def _visible_values(value: Any) -> Any:
    """Return plain data with all its texts visible."""
    if isinstance(value, dict):
        return {visible(name): _visible_values(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_visible_values(inner) for inner in value]
    return visible(value) if isinstance(value, str) else value


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


class Data(_Part):
    """The data of a cell.

    Attributes:
        episodes: key of the test episodes: a hash of names, sizes and images of the test classes, way, shot, queries
            and seed. Records with equal keys have the same episodes.
        raw_files: number of raw files that the pack was compared with; 0 where there were none.
        overlapping: whether the dataset allows that its splits share classes or images.
        duplicates: by split, the number of images identical to another of the split.
        left_out: by split, the number of classes with too few images for an episode, which are not drawn.
        trained_on: fingerprint of the dataset of the training, if that is another one; else empty.
        remarks: oddities of the images, for people.
        licence: licence of the data, as the dataset states it; empty where it is not known.
    """

    episodes: Line
    raw_files: Count
    overlapping: bool = False
    duplicates: dict[str, Count] = {}
    left_out: dict[str, Count] = {}
    trained_on: Line = ""
    remarks: list[Line] = []
    licence: Line = ""


class Invalidation(_Part):
    """That somebody has found a record to be wrong (``metabench invalidate``).

    Attributes:
        by: name of the person.
        because: the reason.
        on: the day, e.g. ``"2026-03-01"``.
    """

    by: Annotated[Line, Field(min_length=1)]
    because: Annotated[Line, Field(min_length=1)]
    on: Line

    def __str__(self) -> str:
        """Return a line for people."""
        return f"marked as invalid by {self.by} on {self.on}: {self.because}"


class Record(_Part):
    """Settings, status, metrics and environment of one cell.

    Control characters of all texts are escaped, except in `identity`, which is compared and not shown.

    Attributes:
        external: name of the file of results of other code, of a cell that metabench did not test; else empty.
        floor: whether the algorithm is a floor (`metabench.specs.AlgorithmSpec.floor`), which tables do not rank.
        every_seed: whether every training seed gives the same result, so that one cell stands for all; False in records
            of earlier versions, where it is not known.
        confirms: id of the cell that this one tests once more on other episodes (``metabench run --confirm``); else
            empty.
        looks: number of tests of the algorithm with this training seed on these episodes that the output directory had
            seen when this one ended (`metabench.records.looks`); None in records of earlier versions, and without
            results.
        trials: number of trials on validation by which the parameters were found (``metabench tune``); 0 where there
            was nothing to search, None where the suite does not say, and in records of earlier versions.
        chance: accuracy of guessing, where the test episodes have classes; None in records of earlier versions.
        circumstances: where and beside what it ran; None in records of earlier versions.
        suite_version: version of the suite; None where it states none, and in records of earlier versions.
        invalidated: by whom and why it was found to be wrong; None of most records.
    """

    schema_version: int = SCHEMA_VERSION
    cell: Text
    suite: Text
    suite_version: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    profile: Text
    algorithm: Text
    dataset: Text
    trained_on: Text = ""
    backbone: Text
    pretrained_on: Line = ""
    way: Count
    shot: Count
    queries: Count
    episodes_file: Text = ""
    seed: int
    identity: dict[str, Any]
    task: TaskKind = "classification"
    external: Line = ""
    floor: bool = False
    every_seed: bool = False
    confirms: Text = ""
    looks: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    trials: Count | None = None
    chance: Share | None = None
    status: Status
    error: Line | None = None
    ranked_by: MetricName = "accuracy"
    metrics: dict[MetricName, Estimate | None] = {}
    declarations: dict[MetricName, Declaration] = {}
    temperature: Temperature | None = None
    inductive_accuracy: Estimate | None = None
    transductive: bool | None = None
    worst_classes: list[ClassAccuracy] = []
    remarks: list[Line] = []
    train: TrainMetrics | None = None
    weights: Weights | None = None
    eval: EvalMetrics | None = None
    flops_per_episode: Count | None = None
    peak_memory_bytes: Count | None = None
    parameters: Count | None = None
    all_parameters: Count | None = None
    device: Text
    machine: Machine
    circumstances: Circumstances | None = None
    dataset_fingerprint: Text
    data: Data | None = None
    environment: Annotated[dict[str, Any], AfterValidator(_visible_values)]
    finished: Text
    invalidated: Invalidation | None = None

    def invalid(self, reason: str, cell: str | None = None) -> Record:
        """Return the record without its results, because they are wrong.

        Args:
            reason: what is wrong, and what to do.
            cell: the id of the cell; None keeps it.
        """
        kept = {name: getattr(self, name) for name in SETTINGS}
        return Record(**{**kept, "cell": cell or self.cell}, status="invalid", error=reason)

    @model_validator(mode="after")
    def _complete(self) -> Record:
        """Check that the parts which other code reads by name are there."""
        if self.status == "ok" and self.primary is None:
            raise ValueError(f"it is ok, but has no {self.ranked_by}")
        for name, estimate in self.metrics.items():
            if name not in self.declarations:
                raise ValueError(f"the metric {name} is not declared")
            if estimate and not self.declarations[name].admits(estimate.value, estimate.value):
                raise ValueError(f"metrics.{name} of {estimate.value:g} is not {self.declarations[name].bounds}")
        if self.train and self.ranked_by in self.declarations:
            for point in self.train.validation:
                if not self.ranking.admits(point.value, point.value):
                    raise ValueError(f"a validation of {point.value:g} is not {self.ranking.bounds}")
        alone = self.inductive_accuracy
        if self.transductive is False and alone is not None and alone != self.primary:
            raise ValueError(f"inductive_accuracy is not {self.ranked_by}, although the method is not transductive")
        for name in _NESTED:
            if not isinstance(self.identity.get(name, {}), dict):
                raise ValueError(f"identity.{name} is no object")
        for name in ("providers", "code"):
            if not isinstance(self.environment.get(name, {}), dict):
                raise ValueError(f"environment.{name} is no object")
        return self

    @property
    def primary(self) -> Estimate | None:
        """Return the estimate of the metric that ranks; None of a cell without results."""
        return self.metrics.get(self.ranked_by)

    def with_ranking(self, metric: str) -> Record:
        """Return the record ranked by another of its metrics, which is not measured with each query on its own."""
        if metric == self.ranked_by:
            return self
        return self.model_copy(update={"ranked_by": metric, "inductive_accuracy": None})

    @property
    def ranking(self) -> Declaration:
        """Return the declaration of the metric that ranks, of a record that is ok."""
        return self.declarations[self.ranked_by]

    @model_validator(mode="before")
    @classmethod
    def _read_version_2(cls, data: Any) -> Any:
        """Read the accuracy of a record of version 1 or 2 as a metric."""
        if not isinstance(data, dict) or data.get("schema_version", SCHEMA_VERSION) not in (1, 2):
            return data
        if "accuracy" not in data:
            return data
        data = {**data, "inductive_accuracy": _estimate(data.get("inductive_accuracy"))}
        accuracy = _estimate(data.pop("accuracy"))
        if accuracy is None:
            return data
        return {**data, "metrics": {"accuracy": accuracy}, "declarations": {"accuracy": _ACCURACY}}

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
