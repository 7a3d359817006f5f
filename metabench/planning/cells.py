"""Trainings and their tests: what a suite asks for, as hashed descriptions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from metabench.data.episodes_files import EpisodesFile
from metabench.data.sampler import EpisodeShape
from metabench.data.subsets import Subset
from metabench.planning.distortions import Distortion
from metabench.planning.suite import Precision
from metabench.planning.targets import Choice
from metabench.specs import TaskKind

__all__ = [
    "Cell",
    "Choice",
    "Schedule",
    "Selection",
    "Testing",
    "Training",
    "WeightsFile",
    "content_hash",
    "sharing_a_training",
]


@dataclass(frozen=True)
class Schedule:
    """How long a training lasts, and how it validates; see `metabench.planning.suite.Train`.

    `time_limit` is not part of the identity of a training.

    Attributes:
        steps: number of outer updates; None where `epochs` says it.
        batch: episodes, or images, per outer update.
        shape: shape of the training episodes; None for an algorithm that trains on images.
        epochs: number of passes over the training images.
    """

    steps: int | None
    batch: int
    shape: EpisodeShape | None
    validate_every: int
    validation_episodes: int
    validation_seed: int = 0
    patience: int | None = None
    seconds: float | None = None
    time_limit: float | None = None
    epochs: int | None = None
    augment: tuple[Distortion, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """Return the settings that determine the weights, as plain data."""
        settings = {**vars(self), "augment": [distortion.model_dump() for distortion in self.augment]}
        del settings["time_limit"]
        if self.shape is None:
            del settings["shape"]
        else:
            settings |= {"shape": self.shape.identity, "meta_batch": settings.pop("batch")}
        # Keep the hashes from before these settings existed.
        absent: dict[str, Any] = {
            "validation_seed": 0,
            "patience": None,
            "seconds": None,
            "steps": None,
            "epochs": None,
            "augment": [],
        }
        return {name: value for name, value in settings.items() if name not in absent or value != absent[name]}

    def __str__(self) -> str:
        """Return the length for people, e.g. ``"100 steps of 4 episodes"``."""
        length = f"{self.epochs} epochs" if self.steps is None else f"{self.steps} steps"
        return f"{length} of {self.batch} episodes" if self.shape else f"{length} in batches of {self.batch} images"


@dataclass(frozen=True)
class Selection:
    """The episodes by which a training selects a snapshot of its weights.

    Attributes:
        shape: way, shot and queries of the validation episodes.
        params: the test-time parameters of the algorithm that trains, as JSON.
        on: the dataset of the validation episodes; None for that of the training.
    """

    shape: EpisodeShape
    params: str = "{}"
    on: Choice | None = None

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def name(self) -> str:
        """Return the part of a file's name, e.g. ``"5way-1shot-15queries"``."""
        shape = f"{self.shape.way}way-{self.shape.shot}shot-{self.shape.queries}queries"
        if self.shape.dirichlet is not None:
            shape += f"-dirichlet{self.shape.dirichlet:g}"
        if self.shape.sampling is not None:
            shape += f"-{self.shape.sampling}"
        rest = [self.params] if self.params != "{}" else []
        rest += [json.dumps(self.on.settings, sort_keys=True)] if self.on else []
        return "-".join([shape, *(_hash(text)[:8] for text in rest)])

    def __str__(self) -> str:
        """Return a text for people."""
        shape = f"{self.shape}, {self.shape.queries} queries"
        if self.shape.dirichlet is not None:
            shape += f" (Dirichlet {self.shape.dirichlet:g})"
        if self.shape.sampling is not None:
            shape += f" ({self.shape.sampling})"
        params = json.loads(self.params)
        on = [f"of {self.on.label}"] if self.on else []
        return ", ".join([shape, *(f"{name} {value}" for name, value in params.items()), *on])


@dataclass(frozen=True)
class WeightsFile:
    """Weights in a file that a suite names.

    Attributes:
        path: the absolute path.
        sha256: hash of its content.
    """

    path: Path
    sha256: str


@dataclass(frozen=True)
class Snapshot:
    """The weights that another training selects.

    Attributes:
        training: the training.
        selection: the episodes by which it selects.
    """

    training: Training
    selection: Selection


@dataclass(frozen=True)
class Training:
    """A training: it makes the weights that one or several cells test.

    Attributes:
        algorithm: the algorithm, without its test-time parameters.
        dataset: the dataset whose splits ``train`` and ``val`` it uses.
        backbone: the backbone.
        way: N of the test episodes; None for an algorithm that serves any way (`metabench.api.Algorithm.any_way`).
        seed: the training seed.
        precision: number format of the backbone.
        schedule: length and validations; None if nothing is trained.
        init: the weights to start from; None draws them from the seed.
        teacher: the weights of a trained algorithm to learn from.
        subset: limits of what it sees of the split ``train``; None where there are none.
    """

    algorithm: Choice
    dataset: Choice
    backbone: Choice
    way: int | None
    seed: int
    precision: Precision
    schedule: Schedule | None
    init: Snapshot | WeightsFile | None = None
    teacher: Snapshot | None = None
    subset: Subset | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Return all settings that determine the weights, as plain data."""
        identity: dict[str, Any] = {
            "algorithm": self.algorithm.settings,
            "dataset": self.dataset.settings,
            "backbone": self.backbone.settings,
            "way": self.way,
            "seed": self.seed,
            "train": self.schedule.identity if self.schedule else None,
        }
        if self.precision != "float32":
            identity["precision"] = self.precision
        return identity | self.given

    @property
    def given(self) -> dict[str, Any]:
        """Return hashes of the weights ``init`` and ``teacher``, without seeds, and the ``subset`` of the data."""
        sources = {"init": self.init, "teacher": self.teacher}
        hashes: dict[str, Any] = {name: _hash_of(source) for name, source in sources.items() if source is not None}
        return hashes | ({"subset": self.subset.identity} if self.subset else {})

    @cached_property
    def id(self) -> str:
        """Return the hash of `identity`, the name of its checkpoint and weights."""
        return content_hash(self.identity)

    @property
    def family(self) -> str:
        """Return the hash of `identity` without the seed, which the trainings of all seeds share."""
        return content_hash({name: value for name, value in self.identity.items() if name != "seed"})

    @property
    def needs(self) -> list[Training]:
        """Return the trainings whose weights it starts or learns from."""
        return [source.training for source in (self.init, self.teacher) if isinstance(source, Snapshot)]

    @property
    def title(self) -> str:
        """Return a one-line description for people."""
        return " · ".join([self.algorithm.label, self.dataset.label, self.backbone.label, f"seed {self.seed}"])


@dataclass(frozen=True)
class Testing:
    """What a test asks; see `metabench.planning.suite.Evaluation`.

    Only the dataset, the shape and the seed are part of a cell's identity: results grow with the number of episodes.

    Attributes:
        dataset: the dataset of the test episodes.
        shape: way, shot and queries of the test episodes.
        seed: seed of the test episodes.
        task: kind of their tasks, that of the dataset: ``"classification"`` or ``"regression"``.
        episodes: number of test episodes.
        inductive_episodes: number of test episodes of which each query is also asked on its own.
        until_ci95: half the interval over episodes at which the test ends; None tests `episodes`.
        at_most: largest number of test episodes with `until_ci95`.
        batch: most episodes at once; None chooses by device.
        time_limit: most seconds of the test; None sets no limit.
        keep_outputs: number of first episodes whose outputs are kept.
        strangers: number of other classes whose images are asked about, too; 0 asks about none.
        corruptions: corruptions of the queries under which the test is repeated.
        severity: severity of the corruptions, 1 to 5.
        file: the file of the test episodes, whose hash is part of the shape; None draws them.
    """

    dataset: Choice
    shape: EpisodeShape
    seed: int
    episodes: int
    inductive_episodes: int
    until_ci95: float | None = None
    at_most: int | None = None
    batch: int | None = None
    time_limit: float | None = None
    keep_outputs: int = 0
    strangers: int = 0
    corruptions: tuple[str, ...] = ()
    severity: int = 5
    task: TaskKind = "classification"
    file: EpisodesFile | None = None


@dataclass(frozen=True)
class Cell:
    """One test of one training: a row of the leaderboard for one seed.

    Attributes:
        algorithm: the tested algorithm, with all its parameters; the one that trained, or another on its backbone.
        training: the training that makes the weights.
        selection: the episodes by which the training selects the tested weights.
        test: the test.
        problem: why it cannot run; empty if it can.
        floor: whether it is a floor (`metabench.specs.AlgorithmSpec.floor`), which tables do not rank.
        every_seed: whether every training seed gives the same result, so that it stands for the cells of all.
        confirms: id of the cell whose weights it tests on other episodes; empty for a cell of the suite.
        trials: number of trials by which its parameters were found; None where the suite does not say.
    """

    algorithm: Choice
    training: Training
    selection: Selection
    test: Testing
    problem: str = ""
    floor: bool = False
    every_seed: bool = False
    confirms: str = ""
    trials: int | None = None

    @property
    def dataset(self) -> Choice:
        """Return the dataset of the test episodes."""
        return self.test.dataset

    @property
    def backbone(self) -> Choice:
        """Return the backbone."""
        return self.training.backbone

    @property
    def shape(self) -> EpisodeShape:
        """Return the shape of the test episodes."""
        return self.test.shape

    @property
    def seed(self) -> int:
        """Return the training seed."""
        return self.training.seed

    @property
    def is_cross_domain(self) -> bool:
        """Return whether it is tested on another dataset than that of its training."""
        return self.training.dataset.label != self.dataset.label

    @property
    def is_trained_by_itself(self) -> bool:
        """Return whether its own algorithm makes its weights."""
        return self.algorithm.label == self.training.algorithm.label

    @property
    def identity(self) -> dict[str, Any]:
        """Return all settings that determine the result, as plain data."""
        training = self.training
        identity: dict[str, Any] = {
            "algorithm": self.algorithm.identity,
            "dataset": self.dataset.identity,
            "backbone": self.backbone.identity,
            "shape": self.shape.identity,
            "seed": training.seed,
            "train": training.schedule.identity if training.schedule else None,
            "test": {"seed": self.test.seed},
        }
        if training.precision != "float32":
            identity["precision"] = training.precision
        if not self.is_trained_by_itself:
            identity["weights"] = training.family
        if self.is_cross_domain:
            identity["trained_on"] = training.dataset.identity
        if self.shape.varies:
            identity["validated_in"] = self.selection.shape.identity
        if self.selection.on:
            identity["validated_on"] = self.selection.on.identity
        return identity | training.given

    @cached_property
    def id(self) -> str:
        """Return the hash of `identity`, the cell's name in the store."""
        return content_hash(self.identity)

    @property
    def labels(self) -> dict[str, str]:
        """Return what ``--only`` and a suite's `exclude` select by."""
        return {
            "algorithm": self.algorithm.label,
            "dataset": self.dataset.label,
            "backbone": self.backbone.label,
            "trained_on": self.training.dataset.label,
            "way": str(self.shape.way),
            "shot": str(self.shape.shot),
            "seed": str(self.seed),
        }

    @property
    def title(self) -> str:
        """Return a one-line description for people."""
        source, target = self.training.dataset.label, self.dataset.label
        parts = [
            self.algorithm.label,
            f"{source} → {target}" if self.is_cross_domain else target,
            self.backbone.label,
            str(self.shape),
            f"seed {self.seed}",
            *(["confirmation"] if self.confirms else []),
        ]
        return " · ".join(parts)


def sharing_a_training(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Group the cells by `Training.id`."""
    sharing: dict[str, list[Cell]] = {}
    for cell in cells:
        sharing.setdefault(cell.training.id, []).append(cell)
    return sharing


def _hash_of(source: Snapshot | WeightsFile) -> str:
    if isinstance(source, WeightsFile):
        return source.sha256
    return f"{source.training.family} {source.selection.name}"


def content_hash(identity: Mapping[str, Any]) -> str:
    """Return the id of a cell or training: a hash of all settings that determine its result."""
    return _hash(json.dumps(identity, sort_keys=True, separators=(",", ":")))[:16]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
