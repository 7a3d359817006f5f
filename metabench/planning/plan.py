"""Plan a suite: cells, each a test of a training."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from metabench.data.sampler import EpisodeShape
from metabench.files import sha256_of
from metabench.planning.cells import Cell, Schedule, Selection, Snapshot, Testing, Training, WeightsFile
from metabench.planning.episodes_file import fixed_episodes_of
from metabench.planning.fitting import misfit
from metabench.planning.floors import with_floors
from metabench.planning.limits import Limit, limits_of, place_of
from metabench.planning.sources import SOURCES
from metabench.planning.suite import Suite, Train
from metabench.planning.suite_file import SuiteFile
from metabench.planning.suite_text import KeyPath
from metabench.planning.targets import Choice, Targets
from metabench.registry.manager import PluginManager


def make_plan(suite: Suite, file: SuiteFile, plugins: PluginManager, targets: Targets | None = None) -> list[Cell]:
    """Return the cells of a suite, in running order.

    Args:
        suite: the resolved suite.
        file: the suite file, for the lines in error messages.
        plugins: the provider of the classes.
        targets: the suite's classes; default: `Targets` of `file` and `plugins`.

    Raises:
        SuiteError: a parameter is wrong, an episode needs more classes or images than a split has, weights are not
            found, or every cell is excluded.
        PluginError: a name is unknown or claimed by two plugins, or its plugin is broken.
    """
    whole, floors = with_floors(suite, plugins)
    cells = list(_Planner(whole, file, targets or Targets(file, plugins), floors).cells())
    if not cells:
        raise file.error(("exclude",), "it leaves no cell: remove a pattern")
    return cells


class _Planner:
    """Combine the entries of a suite.

    Args:
        suite: the resolved suite.
        file: the suite file, for the lines in error messages.
        targets: the suite's classes.
        floors: labels of algorithms that are floors.
    """

    def __init__(self, suite: Suite, file: SuiteFile, targets: Targets, floors: Collection[str] = ()) -> None:
        self._suite = suite
        self._file = file
        self._targets = targets
        self._floors = floors
        self._datasets = {label: targets.choice("dataset", label, entry) for label, entry in suite.datasets.items()}
        self._sizes = {label: targets.sizes(choice) for label, choice in self._datasets.items()}
        self._tasks = {label: targets.task(choice) for label, choice in self._datasets.items()}
        self._fixed = fixed_episodes_of(suite, file)
        self._check_tasks()
        self._algorithms = {
            label: targets.choice("algorithm", label, entry) for label, entry in suite.algorithms.items()
        }
        shared = {label: targets.choice("backbone", label, entry) for label, entry in suite.backbones.items()}
        self._backbones = {
            label: {choice.label: choice for choice in targets.backbones(suite, shared, label, entry)}
            for label, entry in suite.algorithms.items()
        }
        self._traits = {label: targets.algorithm_traits(choice) for label, choice in self._algorithms.items()}
        self._sources = {label: {kind: self._source(label, kind) for kind in SOURCES} for label in suite.algorithms}
        self._limits = {label: self._limits_of(label) for label in suite.algorithms}

    def cells(self) -> Iterator[Cell]:
        """Yield all cells that the suite does not exclude."""
        suite = self._suite
        pairs = [(pair, way) for pair in suite.pairs for way in self._ways(pair[1])]
        for ((trained_on, tested_on), way), shot in product(pairs, suite.shots):
            datasets = self._datasets[trained_on], self._datasets[tested_on]
            for label in suite.algorithms:
                if label in self._floors and not self._has_floors(trained_on, tested_on):
                    continue
                shape = self._shape(label, way, shot)
                planned = [
                    cell
                    for backbone in self._backbones[label].values()
                    for limit in self._limits[label]
                    for cell in self._of_seeds(label, *datasets, backbone, shape, limit)
                    if not suite.excludes(cell.labels)
                ]
                for cell in {cell.training.subset: cell for cell in planned}.values():
                    self._check_sizes(label, cell)
                yield from planned

    def _has_floors(self, trained_on: str, tested_on: str) -> bool:
        """Return whether floors, which nothing trains, are tested beside a pair: once for each dataset of tests."""
        trained = [label for label, tested in self._suite.pairs if tested == tested_on]
        first = tested_on if tested_on in trained else trained[0]
        return first == trained_on and self._tasks[tested_on] == "classification"

    def _ways(self, dataset: str) -> Sequence[int]:
        """Return the ways of a dataset's episodes; a regression has none, which is written as 1."""
        return [1] if self._tasks[dataset] == "regression" else self._suite.ways or []

    def _varies(self, dataset: Choice) -> bool:
        """Return whether the test episodes of a dataset have different ways and shots."""
        varies = self._suite.eval.sampling == "meta-dataset" or (self._fixed is not None and self._fixed[1].varies)
        return varies and self._tasks[dataset.label] == "classification"

    def _check_tasks(self) -> None:
        """Check that ways are given where there are classes, and that a test is of the kind of its training.

        Raises:
            SuiteError: ways are missing, a setting means nothing, there are several ways where tests draw them, or a
                training and its test have different kinds of tasks.
        """
        classified = [label for label, task in self._tasks.items() if task == "classification"]
        if classified and not self._suite.ways:
            raise self._file.error(
                ("ways",), f"the ways are missing: '{classified[0]}' has classes, say how many an episode has"
            )
        if self._suite.ways and not classified:
            raise self._file.error(("ways",), "a regression has no classes: remove 'ways'")
        for name in () if classified else ("strangers", "corruptions"):
            if getattr(self._suite.eval, name):
                raise self._file.error(("eval", name), f"a regression has neither classes nor images: remove '{name}'")
        for label, entry in self._suite.algorithms.items():
            if entry.test.model_fields_set and any(self._varies(choice) for choice in self._datasets.values()):
                raise self._file.error(
                    ("algorithms", label, "test"), "test episodes have sizes of their own: remove 'test'"
                )
        several = (len(self._suite.ways or []), len(self._suite.shots)) != (1, 1)
        if several and classified and any(self._varies(self._datasets[label]) for label in classified):
            raise self._file.error(
                ("eval", "sampling" if self._suite.eval.sampling else "episodes_file"),
                "test episodes have ways and shots of their own: give one way and one shot, those of validation",
            )
        for trained_on, tested_on in self._suite.pairs:
            if self._tasks[trained_on] != self._tasks[tested_on]:
                raise self._file.error(
                    ("datasets", trained_on, "test_on"),
                    f"'{trained_on}' is a {self._tasks[trained_on]} and '{tested_on}' a {self._tasks[tested_on]}: "
                    "remove one",
                )

    def _check_sizes(self, label: str, cell: Cell) -> None:
        """Check the episodes of one algorithm on the datasets whose sizes are known; point at the line to change.

        Raises:
            SuiteError: an episode needs more classes or images than a split has.
        """
        suite, schedule = self._suite, cell.training.schedule
        subset = cell.training.subset
        if cell.test.task == "regression":
            if subset:
                place = place_of(suite, label, subset, next(iter(subset.identity)))
                raise self._file.error(place, "a regression has no classes of images to take some of: remove this")
            return  # a source makes as many points as are asked for
        shape = cell.selection.shape
        places: dict[str, KeyPath] = {
            "way": ("ways", (suite.ways or []).index(shape.way)),
            "shot": ("shots", suite.shots.index(shape.shot)),
        }
        validated_on = cell.selection.on or cell.training.dataset
        drawn = [("val", validated_on, shape)] if schedule else []
        drawn += [] if cell.test.file else [("test", cell.dataset, cell.shape)]
        for split, dataset, asked in drawn:
            sizes = self._sizes[dataset.label]
            problem = misfit(asked, dataset.label, split, sizes[split]) if sizes else None
            if problem:
                place = ("eval", "sampling") if asked.sampling == "meta-dataset" else places[problem.dimension]
                raise self._file.error(place, problem.message)
        self._check_training(label, cell)

    def _check_training(self, label: str, cell: Cell) -> None:
        """Check the subset and the episodes of a training, as `_check_sizes` does.

        Raises:
            SuiteError: a limit or an episode needs more classes or images than there are.
        """
        training, sizes = cell.training, self._sizes[cell.training.dataset.label]
        if not sizes:
            return
        whole, subset, trained_on = sizes["train"], training.subset, training.dataset.label
        if subset and (excess := subset.excess(whole)):
            name, message = excess
            raise self._file.error(place_of(self._suite, label, subset, name), f"{message} in '{trained_on}': lower it")
        shape = training.schedule.shape if training.schedule else None
        if shape is None:
            return
        if problem := misfit(shape, trained_on, "train", whole):
            settings = self._suite.algorithms[label].train
            overridden = settings is not None and settings.model_fields_set
            raise self._file.error(("algorithms", label, "train") if overridden else ("train",), problem.message)
        if subset and (problem := misfit(shape, trained_on, "train", subset.size(whole))):
            name = "classes" if problem.dimension == "way" else "images_per_class"
            place = place_of(self._suite, label, subset, name)
            raise self._file.error(place, f"too few for a training episode: {problem.message}")

    def _trained_by(self, label: str) -> str:
        """Return the algorithm that makes the weights of an algorithm's cells."""
        source = self._sources[label]["weights"]
        return source if isinstance(source, str) else label

    def _limits_of(self, label: str) -> list[Limit]:
        """Return the limits of what an algorithm sees in training; no limits where it sees no training images."""
        trained_by = self._trained_by(label)
        trains_on = self._traits[trained_by].trains_on
        trained = self._sources[trained_by]["weights"] is None and _is_trained(self._suite, trained_by, trains_on)
        if not (trained or self._traits[label].prepares):
            return [Limit()]
        return limits_of(self._suite, label)

    def _of_seeds(
        self, label: str, dataset: Choice, tested_on: Choice, backbone: Choice, shape: EpisodeShape, limit: Limit
    ) -> Iterator[Cell]:
        trained_by, algorithm = self._trained_by(label), self._algorithms[label]
        tuned = self._suite.algorithms[label].tuned
        trainings = [self._training(label, dataset, backbone, shape, seed, limit) for seed in self._suite.seeds]
        every_seed = self._is_the_same_for_every_seed(label, trainings[0])
        if every_seed:
            trainings = trainings[:1]
        for training in trainings:
            problems = (
                self._targets.problem(self._algorithms[label], on, training.backbone) for on in (dataset, tested_on)
            )
            yield Cell(
                replace(algorithm, label=limit.label(label)),
                training,
                self._selection(trained_by, shape, tested_on if tested_on is not dataset else None),
                self._testing(tested_on, shape),
                next(filter(None, problems), ""),
                label in self._floors,
                every_seed,
                trials=tuned.trials if tuned else None,
            )

    def _training(
        self, label: str, dataset: Choice, backbone: Choice, test: EpisodeShape, seed: int, limit: Limit
    ) -> Training:
        """Return the training of an algorithm whose cells have this test shape."""
        weights = self._sources[label]["weights"]
        if isinstance(weights, str):
            return self._training(weights, dataset, self._of(weights, backbone), test, seed, limit)
        entry, choice, traits = self._suite.algorithms[label], self._algorithms[label], self._traits[label]
        return Training(
            algorithm=replace(choice, label=limit.label(label), params=traits.without_test_time(choice.params)),
            dataset=dataset,
            backbone=backbone,
            way=None if traits.any_way else 0 if self._varies(dataset) else test.way,
            seed=seed,
            precision=entry.precision or self._suite.precision,
            schedule=None if weights else _schedule(self._suite, self._file, label, traits.trains_on, test),
            init=weights or self._init(label, dataset, backbone, test, seed, limit),
            teacher=self._snapshot(label, "teacher", dataset, backbone, test, seed, limit),
            subset=limit.subset,
        )

    def _init(
        self, label: str, dataset: Choice, backbone: Choice, test: EpisodeShape, seed: int, limit: Limit
    ) -> Snapshot | WeightsFile | None:
        """Return the weights that a training starts from."""
        source = self._sources[label]["init"]
        if isinstance(source, WeightsFile):
            return source
        return self._snapshot(label, "init", dataset, backbone, test, seed, limit)

    def _snapshot(
        self, label: str, kind: str, dataset: Choice, backbone: Choice, test: EpisodeShape, seed: int, limit: Limit
    ) -> Snapshot | None:
        """Return the weights of another training, selected for the suite's first shot."""
        source = self._sources[label][kind]
        if not isinstance(source, str):
            return None
        shape = self._shape(label, test.way, self._suite.shots[0])
        of_source = self._limit_of_source(label, kind, source, limit)
        training = self._training(source, dataset, self._of(source, backbone), shape, seed, of_source)
        return Snapshot(training, self._selection(source, shape))

    def _limit_of_source(self, label: str, kind: str, source: str, limit: Limit) -> Limit:
        """Return the limit under which a source has been trained: the same, or its only one.

        Raises:
            SuiteError: it has several others.
        """
        known = self._limits[source]
        same = [other for other in known if other.subset == limit.subset]
        if not same and len(known) > 1:
            raise self._file.error(
                ("algorithms", label, kind),
                f"'{source}' is trained on several subsets, of which none is that of '{label}': give both the same "
                "train.classes and train.images_per_class",
            )
        return (same or known)[0]

    def _of(self, label: str, backbone: Choice) -> Choice:
        """Return a backbone with the changes of an algorithm."""
        return self._backbones[label].get(backbone.label, backbone)

    def _selection(self, label: str, shape: EpisodeShape, target: Choice | None = None) -> Selection:
        """Return the selection by an algorithm's validation, with the dataset of a cross-domain test."""
        test_time = self._traits[label].test_time(self._algorithms[label].params)
        train = self._suite.train
        on = target if train is not None and train.validate_on == "test" else None
        return Selection(shape, json.dumps(test_time, sort_keys=True), on)

    def _source(self, label: str, kind: str) -> str | WeightsFile | None:
        """Return the source of an algorithm's weights: the label of another algorithm, or a file.

        Raises:
            SuiteError: the file cannot be read.
        """
        source = getattr(self._suite.algorithms[label], kind)
        if source is None or source in self._suite.algorithms:
            return str(source) if source is not None else None
        try:
            return WeightsFile(Path(source), sha256_of(source))
        except OSError as error:
            place = ("algorithms", label, kind)
            raise self._file.error(place, f"cannot read {source}: {error.strerror}") from error

    def _shape(self, label: str, way: int, shot: int) -> EpisodeShape:
        """Return the shape of an algorithm's test episodes, or of its validation episodes where a test varies."""
        settings, own = self._suite.eval, self._suite.algorithms[label].test
        alpha = settings.dirichlet_alpha if settings.query_balance == "dirichlet" else None
        queries = _queries(own.queries or self._suite.queries, shot)
        sampling = own.sampling or settings.sampling
        return EpisodeShape(way, shot, queries, alpha, sampling=None if sampling == "meta-dataset" else sampling)

    def _testing(self, dataset: Choice, shape: EpisodeShape) -> Testing:
        settings = self._suite.eval
        until, task = settings.until, self._tasks[dataset.label]
        file = self._fixed[0] if self._fixed and task == "classification" else None
        if self._varies(dataset):
            shape = EpisodeShape(0, 0, 0, sampling=settings.sampling)
        most = until.at_most if until else settings.episodes
        return Testing(
            dataset=dataset,
            shape=replace(shape, file=file.sha256) if file else shape,
            seed=settings.seed,
            episodes=settings.episodes,
            inductive_episodes=min(settings.inductive_episodes, most),
            until_ci95=until.ci95 if until else None,
            at_most=until.at_most if until else None,
            batch=settings.batch,
            time_limit=settings.time_limit,
            keep_outputs=0 if self._varies(dataset) else settings.keep_outputs,
            strangers=settings.strangers,
            corruptions=tuple(settings.corruptions),
            severity=settings.severity,
            task=task,
            file=file,
        )

    def _is_the_same_for_every_seed(self, label: str, training: Training) -> bool:
        """Return whether neither weights nor test draw at random."""
        if training.schedule is not None or training.subset is not None or self._traits[label].draws:
            return False
        return isinstance(training.init, WeightsFile) or not self._targets.backbone_draws(training.backbone)


#: Training settings of algorithms that train on episodes only, and of those that train on images only.
_OF_EPISODES, _OF_IMAGES = ("meta_batch", "way", "shot", "queries", "sampling"), ("batch", "epochs")


def _queries(queries: int | str, shot: int) -> int:
    """Return the queries of a class, of which ``shot`` means as many as support images."""
    return shot if isinstance(queries, str) else queries


def _is_trained(suite: Suite, label: str, trains_on: str) -> bool:
    """Return whether an algorithm that has no weights of others is trained."""
    own = suite.algorithms[label].train
    return trains_on != "nothing" and own is not None and (suite.train is not None or bool(own.model_fields_set))


def _schedule(suite: Suite, file: SuiteFile, label: str, trains_on: str, test: EpisodeShape) -> Schedule | None:
    """Merge the suite's training settings with the algorithm's; default to the test shape.

    The suite's settings serve algorithms that train on episodes and on images: each takes its own.

    Returns:
        The schedule; None if nothing is trained.

    Raises:
        SuiteError: an algorithm is trained and no number of steps is given, or one of its own settings is of the other
            kind.
    """
    own = suite.algorithms[label].train
    if own is None or not _is_trained(suite, label, trains_on):
        return None
    on_images, place = trains_on == "images", ("algorithms", label, "train")
    for name in _OF_EPISODES if on_images else _OF_IMAGES:
        if getattr(own, name) is not None:
            of_its_kind = ", ".join(["steps", *(_OF_IMAGES if on_images else _OF_EPISODES)])
            raise file.error((*place, name), f"'{label}' trains on {trains_on}: remove '{name}' (it has {of_its_kind})")
    if own.steps is not None and own.epochs is not None:
        raise file.error((*place, "steps"), "the training has 'epochs', too: remove one of them")
    shared = suite.train or Train(steps=1)

    def setting(name: str) -> Any:
        value = getattr(own, name)
        return getattr(shared, name) if value is None else value

    epochs = setting("epochs") if on_images and own.steps is None else None
    steps = own.steps if suite.train is None else setting("steps")
    steps = None if epochs is not None else steps
    if epochs is None and steps is None:
        missing = "the key 'epochs' or 'steps' is missing" if on_images else "the key 'steps' is missing"
        if suite.train is None:
            raise file.error(place, f"{missing}, and the suite's 'train' is none")
        raise file.error(place if own.model_fields_set else ("train",), f"{missing}, for '{label}'")
    every = setting("validate_every")
    way = setting("way") or test.way if test.way > 1 else 1
    shot = setting("shot") or test.shot
    queries = _queries(setting("queries") or test.queries, shot)
    shape = EpisodeShape(way, shot, queries, sampling=setting("sampling") or test.sampling)
    return Schedule(
        steps=steps,
        batch=setting("batch" if on_images else "meta_batch"),
        shape=None if on_images else shape,
        validate_every=every if steps is None else min(every, steps),
        validation_episodes=setting("validation_episodes"),
        validation_seed=shared.validation_seed,
        patience=setting("patience"),
        seconds=setting("seconds"),
        time_limit=setting("time_limit"),
        epochs=epochs,
        augment=tuple(setting("augment")),
    )
