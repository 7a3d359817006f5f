"""Build and time each setup before a run, to refuse bad cells and predict its time."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch

from metabench.api import Algorithm, SourceSplit, Split
from metabench.data.packing import DataRoots
from metabench.engine.asking import predict, predict_alone
from metabench.engine.controls import is_transductive
from metabench.engine.evaluation import queries_alone
from metabench.engine.features import may_embed_once
from metabench.engine.learner import build, build_tested, computing
from metabench.engine.outcome import CALIBRATION_EPISODES
from metabench.engine.progress import Watcher
from metabench.engine.scaling import scaled
from metabench.engine.steps import steps_of, training_batches
from metabench.engine.streams import Stream, evaluation_stream, training_stream
from metabench.engine.subsets import splits_of
from metabench.engine.trial import set_batchings
from metabench.errors import SuiteError, Unfit
from metabench.executors.loading import load_datasets
from metabench.executors.processes import Died, run_job
from metabench.machine.clock import Stopwatch
from metabench.machine.device import choose_device
from metabench.machine.memory import BatchSize
from metabench.planning.cells import Cell, Training, sharing_a_training
from metabench.planning.suite import Suite, SuiteFile, resolve
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager

#: Number of episodes timed at once, where their stream does not say.
_AT_ONCE = 4
#: Seconds of an episode above which only one is timed, not several.
_SLOW = 0.5
#: Images of an epoch where profiles are compared before any data are loaded: miniImageNet has as many.
_EPOCH = 38_400
#: Approximate number of episodes of a test for transduction and latency.
_PROBED = 50


@dataclass(frozen=True)
class Pace:
    """Seconds that a setup takes.

    Attributes:
        step: seconds of an outer update.
        test_episode: seconds to adapt to one episode and predict its queries.
        alone: seconds to predict the first query of each class on its own; 0 for inductive methods.
        split: number of test episodes with as many images as the test split, if the engine may embed the split once.
    """

    step: float
    test_episode: float
    alone: float
    split: float = math.inf

    def seconds(self, cell: Cell, steps: int, trained: bool, weights: bool) -> float:
        """Return the expected seconds of a cell.

        Args:
            cell: a cell of this setup.
            steps: number of outer updates of its training.
            trained: whether another cell has trained its weights.
            weights: whether an earlier run has kept its weights.
        """
        schedule, test = cell.training.schedule, cell.test
        training, validations, calibrated = 0.0, 0, 0
        if schedule is not None and test.task == "classification":
            calibrated = min(schedule.validation_episodes, CALIBRATION_EPISODES)
        if schedule is not None and not weights:
            training = 0.0 if trained else steps * self.step
            training = min(training, schedule.seconds or training)
            validations = -(-steps // schedule.validate_every) * schedule.validation_episodes
        tested = validations + calibrated + min(test.episodes, self.split) + _PROBED
        return training + tested * self.test_episode + test.inductive_episodes * self.alone


def rehearse(
    cells: Sequence[Cell],
    splits: Mapping[str, Mapping[str, Split | SourceSplit]],
    device: torch.device,
    plugins: PluginManager,
    weights: Collection[str] = (),
) -> dict[str, float]:
    """Return the expected seconds of each cell; empty if a setup fails.

    Cells of one setup differ only in seeds, labels or numbers of steps and episodes; it is built and timed once.

    Args:
        cells: the cells that will run.
        splits: the splits of each dataset, by its label.
        device: the device that they run on.
        plugins: the provider of the classes.
        weights: ids of the trainings whose weights an earlier run has kept.

    Raises:
        DataError: a file of episodes names a class or an image that a dataset has not.
        SuiteError: an algorithm or backbone refuses its cell (a `ValueError` of its constructor).
    """
    for cell in {cell.dataset.label: cell for cell in cells if cell.test.file}.values():
        evaluation_stream(cell, splits[cell.dataset.label], device)  # refuses unknown names before a training
    paces: dict[str, Pace | None] = {}
    for cell in cells:
        setup = _setup(cell)
        if setup not in paces:
            paces[setup] = _timed(
                cell, splits[cell.training.dataset.label], splits[cell.dataset.label], device, plugins
            )
    expected = {}
    for sharing in sharing_a_training(cells).values():
        for cell in sharing:
            pace = paces[_setup(cell)]
            if pace is None:
                return {}
            schedule, steps = cell.training.schedule, 0
            if schedule and pace.test_episode:  # else it will be skipped
                steps = steps_of(schedule, splits_of(cell.training, splits[cell.training.dataset.label])["train"])
            expected[cell.id] = pace.seconds(cell, steps, cell is not sharing[0], cell.training.id in weights)
    return expected


@dataclass(frozen=True)
class Rehearsal:
    """`rehearse` as the work of a worker (`metabench.executors.processes.Job`), which a plugin may end.

    Attributes:
        cells: the cells that will run.
        device: the device that they run on.
        weights: ids of the trainings whose weights an earlier run has kept.
    """

    cells: Sequence[Cell]
    device: torch.device
    weights: Collection[str]

    def run(self, watcher: Watcher) -> Iterator[dict[str, float]]:
        """Load plugins and data; yield the expected seconds of each cell."""
        plugins = PluginManager.from_environment()
        choose_device(self.device.type)
        roots = DataRoots.from_environment(os.environ)
        datasets = load_datasets(self.cells, plugins, roots, self.device, lambda: nullcontext(lambda *progress: None))
        splits = {label: dataset.splits for label, dataset in datasets.items()}
        yield rehearse(self.cells, splits, self.device, plugins, self.weights)


def rehearse_in_worker(
    cells: Sequence[Cell], device: torch.device, threads: int, watcher: Watcher, weights: Collection[str] = ()
) -> dict[str, float]:
    """Return the result of `rehearse`; empty if the worker dies.

    Raises:
        SuiteError: an algorithm or backbone refuses its cell.
        Interrupted: `watcher` asked to stop.
    """
    result = run_job(Rehearsal(cells, device, weights), threads, watcher)
    return {} if isinstance(result, Died) else result


def shorter_profiles(file: SuiteFile, suite: Suite, planned: Callable[[Suite, SuiteFile], Sequence[Cell]]) -> list[str]:
    """Return the profiles with less than half as many images in all as `suite`.

    Args:
        file: the suite file.
        suite: the resolved suite.
        planned: returns the plan of a resolved suite.
    """
    images = {name: _images(planned(*resolve(file, name))) for name in ["", *file.profiles]}
    return [name for name in file.profiles if images[name] < images[suite.profile] / 2]


def _images(cells: Sequence[Cell]) -> float:
    tested = sum(cell.test.episodes * cell.shape.images for cell in cells)
    schedules = [sharing[0].training.schedule for sharing in sharing_a_training(cells).values()]
    return tested + sum(
        (schedule.steps or (schedule.epochs or 0) * _EPOCH / schedule.batch)
        * schedule.batch
        * (schedule.shape.images if schedule.shape else 1)
        for schedule in schedules
        if schedule
    )


def _setup(cell: Cell) -> str:
    """Return a key that cells share if an episode takes each of them as long."""
    algorithm, backbone = cell.algorithm, cell.backbone
    training, schedule = cell.training, cell.training.schedule
    parts = [algorithm.name, algorithm.params, backbone.name, backbone.params, cell.dataset.label]
    parts += [training.algorithm.name, training.algorithm.params, training.dataset.label]
    parts += [training.subset.identity] if training.subset else []
    sizes: list[object] = [vars(cell.shape), training.precision]
    if schedule:
        shape = vars(schedule.shape) if schedule.shape else None
        augment = [distortion.model_dump() for distortion in schedule.augment]
        sizes += [shape, schedule.batch, augment]
    return json.dumps([*parts, *sizes], sort_keys=True)


def _timed(
    cell: Cell,
    trained_on: Mapping[str, Split | SourceSplit],
    tested_on: Mapping[str, Split | SourceSplit],
    device: torch.device,
    plugins: PluginManager,
) -> Pace | None:
    """Return the pace of a cell's setup; None if it fails, as the cell then will, with its reason.

    A setup that does not fit takes no time: its cells are skipped.

    Raises:
        SuiteError: the algorithm or the backbone refuses the cell.
    """
    training, schedule = cell.training, cell.training.schedule
    with computing(training, device):
        try:
            trained_on = splits_of(training, trained_on)
            algorithm = build(training, trained_on, device, plugins)
            tested = algorithm if cell.is_trained_by_itself else build_tested(cell, trained_on, device, plugins)
            trained_on, tested_on = (scaled(splits, algorithm.backbone) for splits in (trained_on, tested_on))
        except Unfit:
            return Pace(0.0, 0.0, 0.0)
        except ValueError as error:
            raise SuiteError(f"{cell.title}: {error}") from error
        except Exception:  # a plugin may raise anything
            return None
        try:
            test, step = evaluation_stream(cell, tested_on, device), 0.0
            if schedule is not None:
                step = _timed_step(training, algorithm, trained_on, device)
            if tested is not algorithm or schedule is None or schedule.shape is None:
                set_batchings(tested, test.batch(0, 1 if test.varies else 2), trains=False)
            if cell.is_trained_by_itself:
                tested.config = validate_config(type(tested.config), cell.algorithm.params)
            episode, alone = _timed_predictions(tested, test, cell.test.seed, device)
        except Unfit:
            return Pace(0.0, 0.0, 0.0)
        except Exception:
            return None
    drawn, split = tested_on["test"], math.inf
    if isinstance(drawn, Split) and may_embed_once(tested, drawn):
        split = len(drawn.rows) / cell.shape.images
    return Pace(step, episode, alone, split)


def _timed_step(
    training: Training, algorithm: Algorithm, splits: Mapping[str, Split | SourceSplit], device: torch.device
) -> float:
    """Return the seconds of an outer update; of episodes, few are timed."""
    schedule = training.schedule
    assert schedule is not None, "a training has a schedule"
    if schedule.shape is None:
        batches = training_batches(training, splits, device)
        return _median_seconds(device, lambda i: algorithm.train_step(batches(i)))
    train = training_stream(training, splits, device)
    batch = min(schedule.batch, train.at_once or _AT_ONCE)
    set_batchings(algorithm, train.batch(0, batch))
    seconds = _median_seconds(device, lambda i: algorithm.train_step(train.batch(i * batch, batch)))
    return seconds * schedule.batch / batch


def _timed_predictions(algorithm: Algorithm, stream: Stream, seed: int, device: torch.device) -> tuple[float, float]:
    """Seconds per test episode, and per episode of the inductive re-test.

    The latter is 0 for inductive algorithms.
    """
    at_once = stream.at_once or _AT_ONCE
    episodes = _AT_ONCE if stream.varies else at_once
    warm_up = Stopwatch(device)
    with warm_up.running():
        predict(algorithm, stream.batch(0, 1), seed, 0)
    if warm_up.seconds > _SLOW:
        episodes = at_once = 1
    watch = Stopwatch(device)
    with watch.running():
        transductive = is_transductive(algorithm, stream, seed, BatchSize(device, at_once), episodes)
    alone = Stopwatch(device)
    if transductive:
        # An algorithm that cannot predict a single query is tested all the same; a remark gives the reason.
        with suppress(Exception), alone.running():
            predict_alone(algorithm, queries_alone(stream.batch(0, 1)), seed, 0)
    return watch.seconds / (2 * episodes), alone.seconds


def _median_seconds(device: torch.device, work: Callable[[int], object]) -> float:
    """Return the median time of three calls, after an untimed one."""
    seconds = []
    for i in range(4):
        watch = Stopwatch(device)
        with watch.running():
            work(i)
        seconds.append(watch.seconds)
    return statistics.median(seconds[1:])
