"""The record of a cell, stored as JSON (docs/records.md), and its per-episode results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from metabench.records.earlier import with_machine, with_metrics
from metabench.records.machines import Circumstances, Machine
from metabench.records.measured import ClassAccuracy, Declaration, EngineCost, Estimate, Temperature
from metabench.records.stages import EvalMetrics, TrainMetrics, Weights
from metabench.records.tallies import Tallies
from metabench.records.values import Count, Line, MetricName, Part, Share, Status, Text
from metabench.specs import TaskKind
from metabench.text import shape_text, visible

if TYPE_CHECKING:  # reading records must not import numpy
    import numpy as np
    import numpy.typing as npt

#: The fields of a record that are not results.
SETTINGS = (
    *("schema_version", "cell", "suite", "profile", "algorithm", "dataset", "backbone", "way", "shot", "queries"),
    "setting",
    *("pretrained_on", "confirms", "external"),
    *("episodes_file", "seed", "identity", "task", "ranked_by", "device", "machine", "dataset_fingerprint"),
    *("environment", "finished", "circumstances", "suite_version", "invalidated", "trials"),
)

#: Version 2 added `Record.machine`, version 3 `Record.metrics` in place of the accuracy; earlier records are read.
SCHEMA_VERSION = 3
#: Parts of a cell's identity that other code looks into.
_NESTED = ("dataset", "test")

#: The metric of answers that ranks, by kind of task.
_OF_ANSWERS: Mapping[TaskKind, str] = {"classification": "accuracy", "regression": "mse"}


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


def _visible_values(value: Any) -> Any:
    """Return plain data with all its texts visible."""
    if isinstance(value, dict):
        return {visible(name): _visible_values(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_visible_values(inner) for inner in value]
    return visible(value) if isinstance(value, str) else value


class Data(Part):
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
    duplicates: dict[str, Count] = Field(default_factory=dict)
    left_out: dict[str, Count] = Field(default_factory=dict)
    trained_on: Line = ""
    remarks: list[Line] = Field(default_factory=list)
    licence: Line = ""


class Invalidation(Part):
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


class Record(Part):
    """Settings, status, metrics and environment of one cell.

    Control characters of all texts are escaped, except in `identity`, which is compared and not shown.

    Attributes:
        external: name of the file of results of other code, of a cell that metabench did not test; else empty.
        floor: whether the algorithm is a floor (`metabench.specs.AlgorithmSpec.floor`), which tables do not rank.
        every_seed: whether every training seed gives the same result, so that one cell stands for all; False in records
            of earlier versions, where it is not known.
        confirms: id of the cell that this one tests once more on other episodes (``metabench run --confirm``); else
            empty.
        setting: what the methods of its table have in common, in the place of way and shot; empty where these say it.
        costs: costs that only its engine knows, by name.
        pictured: caption of its picture; empty for pictures of few-shot episodes, whose caption the report knows.
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
    setting: Line = ""
    pictured: Line = ""
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
    metrics: dict[MetricName, Estimate | None] = Field(default_factory=dict)
    declarations: dict[MetricName, Declaration] = Field(default_factory=dict)
    temperature: Temperature | None = None
    inductive_accuracy: Estimate | None = None
    transductive: bool | None = None
    worst_classes: list[ClassAccuracy] = Field(default_factory=list)
    remarks: list[Line] = Field(default_factory=list)
    train: TrainMetrics | None = None
    weights: Weights | None = None
    eval: EvalMetrics | None = None
    costs: dict[MetricName, EngineCost] = Field(default_factory=dict)
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
            declared = self.declarations[self.metric_of_answers]
            for point in self.train.validation:
                if not declared.admits(point.value, point.value):
                    raise ValueError(f"a validation of {point.value:g} is not {declared.bounds}")
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
    def shape(self) -> str:
        """Return way and shot as text, or `setting`."""
        return self.setting or shape_text(self.way, self.shot)

    @property
    def task_text(self) -> str:
        """Return dataset, shape and backbone as text."""
        return " · ".join(filter(None, [self.dataset, self.shape, self.backbone]))

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
    def metric_of_answers(self) -> str:
        """Return the name of the metric of validation and kept outputs, also where rollouts rank.

        Records of an engine with metrics of its own lack it: their validation is of the metric that ranks.
        """
        of_answers = _OF_ANSWERS[self.task]
        return of_answers if of_answers in self.declarations else self.ranked_by

    @property
    def ranking(self) -> Declaration:
        """Return the declaration of the metric that ranks, of a record that is ok."""
        return self.declarations[self.ranked_by]

    @model_validator(mode="before")
    @classmethod
    def _read_earlier(cls, data: Any) -> Any:
        """Read a record of an earlier version."""
        return with_metrics(with_machine(data))
