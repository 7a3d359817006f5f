"""Plan a suite: cells, each a complete, hashed description of a training and its test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

from metabench.data.sampler import EpisodeShape
from metabench.errors import CellFailed
from metabench.filters import choose
from metabench.planning.suite import AlgorithmEntry, Precision, Suite, SuiteFile
from metabench.planning.suite_text import KeyPath
from metabench.planning.targets import Choice, Targets
from metabench.registry.manager import PluginManager

if TYPE_CHECKING:  # imports torch
    from metabench.api import Split, SplitSize

__all__ = [
    "Cell",
    "Choice",
    "Testing",
    "Training",
    "check_cell",
    "classes_left_out",
    "fits",
    "make_plan",
    "select",
    "sharing_a_training",
]


@dataclass(frozen=True)
class Training:
    """The training settings of a cell; see `metabench.planning.suite.Train`."""

    steps: int
    meta_batch: int
    shape: EpisodeShape
    validate_every: int
    validation_episodes: int
    validation_seed: int


@dataclass(frozen=True)
class Testing:
    """The test settings of a cell; see `metabench.planning.suite.Evaluation`.

    `batch` and `keep_outputs` are not part of a cell's identity.
    """

    episodes: int
    inductive_episodes: int
    seed: int
    batch: int | None
    keep_outputs: int


@dataclass(frozen=True)
class Cell:
    """One training and its test: a row of the leaderboard for one seed.

    Attributes:
        problem: why it cannot run; empty if it can.
    """

    algorithm: Choice
    dataset: Choice
    backbone: Choice
    shape: EpisodeShape
    seed: int
    precision: Precision
    train: Training
    test: Testing
    problem: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """Return all settings that determine the result, as plain data."""
        test = vars(self.test).copy()
        del test["batch"], test["keep_outputs"]
        identity: dict[str, Any] = {
            "algorithm": vars(self.algorithm).copy(),
            "dataset": vars(self.dataset).copy(),
            "backbone": vars(self.backbone).copy(),
            "shape": asdict(self.shape),
            "seed": self.seed,
            "train": {**vars(self.train), "shape": asdict(self.train.shape)},
            "test": test,
        }
        if self.train.validation_seed == 0:  # keeps the hashes from before the setting existed
            del identity["train"]["validation_seed"]
        if self.precision != "float32":  # keeps the hashes of float32 cells from before the setting existed
            identity["precision"] = self.precision
        return identity

    @cached_property
    def id(self) -> str:
        """Return the hash of `identity`, the cell's name in the store."""
        return _content_hash(self.identity)

    @cached_property
    def training_id(self) -> str:
        """Return the hash of the training; no setting of the test but the way is part of it.

        Cells share a training if they differ only in labels, or in the shots, queries, number or seed of their test
        episodes.
        """
        identity = self.identity
        for choice in ("algorithm", "dataset", "backbone"):
            del identity[choice]["label"]
        identity["shape"] = {"way": self.shape.way}
        del identity["test"]
        return _content_hash(identity)

    @property
    def labels(self) -> dict[str, str]:
        """Return what ``--only`` and a suite's `exclude` select by."""
        return {
            "algorithm": self.algorithm.label,
            "dataset": self.dataset.label,
            "backbone": self.backbone.label,
            "way": str(self.shape.way),
            "shot": str(self.shape.shot),
            "seed": str(self.seed),
        }

    @property
    def title(self) -> str:
        """Return a one-line description for people."""
        parts = [
            self.algorithm.label,
            self.dataset.label,
            self.backbone.label,
            f"{self.shape.way}-way {self.shape.shot}-shot",
            f"seed {self.seed}",
        ]
        return " · ".join(parts)


def _content_hash(identity: Mapping[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_plan(suite: Suite, file: SuiteFile, plugins: PluginManager, targets: Targets | None = None) -> list[Cell]:
    """Return the cells of a suite, in running order.

    Args:
        suite: the resolved suite.
        file: the suite file, for the lines in error messages.
        plugins: the provider of the classes.
        targets: the suite's classes; default: `Targets` of `file` and `plugins`.

    Raises:
        SuiteError: a parameter is wrong, an episode needs more classes or images than a split has, or every cell is
            excluded.
        PluginError: a name is unknown or claimed by two plugins, or its plugin is broken.
    """
    targets = targets or Targets(file, plugins)
    datasets = {label: targets.choice("dataset", label, entry) for label, entry in suite.datasets.items()}
    sizes = {label: targets.sizes(choice) for label, choice in datasets.items()}
    algorithms = {label: targets.choice("algorithm", label, entry) for label, entry in suite.algorithms.items()}
    shared = {label: targets.choice("backbone", label, entry) for label, entry in suite.backbones.items()}
    backbones = {label: targets.backbones(suite, shared, label, entry) for label, entry in suite.algorithms.items()}
    test = Testing(
        episodes=suite.eval.episodes,
        inductive_episodes=min(suite.eval.inductive_episodes, suite.eval.episodes),
        seed=suite.eval.seed,
        batch=suite.eval.batch,
        keep_outputs=suite.eval.keep_outputs,
    )
    cells: list[Cell] = []
    for dataset, way, shot in product(datasets.values(), suite.ways, suite.shots):
        shape = EpisodeShape(way, shot, suite.queries)
        for label, entry in suite.algorithms.items():
            train = _training(suite, entry, shape)
            precision = entry.precision or suite.precision
            planned: list[Cell] = []
            for backbone in backbones[label]:
                problem = targets.problem(algorithms[label], dataset, backbone)
                planned += [
                    Cell(algorithms[label], dataset, backbone, shape, seed, precision, train, test, problem)
                    for seed in suite.seeds
                ]
            planned = [cell for cell in planned if not suite.excludes(cell.labels)]
            split_sizes = sizes[dataset.label]
            if planned and split_sizes is not None:
                _check_sizes(file, suite, label, shape, train.shape, dataset.label, split_sizes)
            cells += planned
    if not cells:
        raise file.error(("exclude",), "it leaves no cell: remove a pattern")
    return cells


def select(cells: Sequence[Cell], only: Mapping[str, Iterable[str]]) -> list[Cell]:
    """Return the cells that pass the filters of ``--only``.

    Args:
        cells: the cells of the plan.
        only: accepted values by filter: algorithm, dataset, backbone, way, shot or seed.

    Raises:
        UsageError: a filter or a value is unknown.
    """
    return choose(cells, lambda cell: cell.labels, only, "the suite")


def sharing_a_training(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Group the cells by `Cell.training_id`."""
    sharing: dict[str, list[Cell]] = {}
    for cell in cells:
        sharing.setdefault(cell.training_id, []).append(cell)
    return sharing


def _training(suite: Suite, entry: AlgorithmEntry, test: EpisodeShape) -> Training:
    """Merge the suite's training settings with the algorithm's; default to the test shape."""
    settings = {**suite.train.model_dump(), **entry.train.model_dump(exclude_none=True)}
    steps = settings["steps"]
    return Training(
        steps=steps,
        meta_batch=settings["meta_batch"],
        shape=EpisodeShape(
            settings["way"] or test.way, settings["shot"] or test.shot, settings["queries"] or test.queries
        ),
        validate_every=min(settings["validate_every"], steps),
        validation_episodes=settings["validation_episodes"],
        validation_seed=settings["validation_seed"],
    )


def check_cell(cell: Cell, splits: Mapping[str, Split]) -> None:
    """Check that every split has enough classes that can be drawn for the cell's episodes.

    `make_plan` checks the datasets that know their sizes before loading; this checks the loaded data.

    Raises:
        CellFailed: a split is too small.
    """
    for name, shape in (("train", cell.train.shape), ("val", cell.shape), ("test", cell.shape)):
        drawn = splits[name].size.classes - classes_left_out(splits[name], shape)
        if drawn < shape.way:
            problem = _misfit(shape, cell.dataset.label, name, splits[name].size)
            raise CellFailed(
                problem.message
                if problem
                else f"{shape.way} ways asked of '{cell.dataset.label}', but only {drawn} of the "
                f"{splits[name].size.classes} classes of its {name} split have {shape.per_class} images "
                f"({shape.shot} shots + {shape.queries} queries): lower the ways, the shots or the queries"
            )


def classes_left_out(split: Split, shape: EpisodeShape) -> int:
    """Return the number of classes with too few images for episodes of a shape, which are not drawn."""
    return int((split.offsets.diff() < shape.per_class).sum())


def fits(shape: EpisodeShape, splits: Mapping[str, Split]) -> bool:
    """Return whether loaded data have enough classes and images for test episodes of a shape."""
    held_out = [splits[name] for name in ("val", "test")]
    return all(split.size.classes - classes_left_out(split, shape) >= shape.way for split in held_out)


@dataclass(frozen=True)
class _Misfit:
    """An episode shape too large for a split.

    Attributes:
        dimension: ``"way"`` or ``"shot"``, the setting to lower.
        message: the error message.
    """

    dimension: str
    message: str


def _misfit(shape: EpisodeShape, dataset: str, split: str, size: SplitSize) -> _Misfit | None:
    if shape.way > size.classes:
        return _Misfit(
            "way",
            f"{shape.way} ways asked of '{dataset}', whose {split} split has {size.classes} classes: lower the ways",
        )
    if shape.per_class > size.most_images:
        at_most = "" if size.most_images == size.images_per_class else "at most "
        return _Misfit(
            "shot",
            f"{shape.per_class} images of a class asked of '{dataset}' ({shape.shot} shots + {shape.queries} queries), "
            f"whose {split} split has {at_most}{size.most_images}: lower the shots or the queries",
        )
    return None


def _check_sizes(
    file: SuiteFile,
    suite: Suite,
    label: str,
    test: EpisodeShape,
    train: EpisodeShape,
    dataset: str,
    sizes: Mapping[str, SplitSize],
) -> None:
    """Check the episodes of one algorithm; point at the line to change."""
    places: dict[str, KeyPath] = {
        "way": ("ways", suite.ways.index(test.way)),
        "shot": ("shots", suite.shots.index(test.shot)),
    }
    for split in ("val", "test"):
        problem = _misfit(test, dataset, split, sizes[split])
        if problem:
            raise file.error(places[problem.dimension], problem.message)
    problem = _misfit(train, dataset, "train", sizes["train"])
    if problem:
        overridden = suite.algorithms[label].train.model_fields_set
        raise file.error(("algorithms", label, "train") if overridden else ("train",), problem.message)
