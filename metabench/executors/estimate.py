"""How long will a run take, and what would be shorter? Times a step and an episode of every cell, before the run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch

from metabench.api import Algorithm, Split
from metabench.engine.cell import build, image_shape_of
from metabench.engine.evaluation import first_of_each_class, is_transductive, predict
from metabench.engine.precision import tf32
from metabench.engine.streams import EpisodeStream, evaluation_stream, training_stream
from metabench.machine.clock import Stopwatch
from metabench.machine.reproducible import deterministic
from metabench.planning.plan import Cell, make_plan, sharing_a_training
from metabench.planning.suite import Suite, SuiteFile, resolve
from metabench.registry.manager import PluginManager

#: Episodes that are timed at once.
_AT_ONCE = 4


def expected_times(
    cells: Sequence[Cell], splits: Mapping[str, Mapping[str, Split]], device: torch.device, plugins: PluginManager
) -> dict[str, float]:
    """Return how many seconds each cell should take, by its identity; of several that share a training, one trains.

    Args:
        cells: in the order in which they run.
        splits: of each dataset, by its label.
        device: where they run.
        plugins: who provides the classes.
    """
    expected: dict[str, float] = {}
    for sharing in sharing_a_training(cells).values():
        for cell in sharing:
            trained = cell is not sharing[0]
            expected[cell.id] = expected_seconds(cell, splits[cell.dataset.label], device, plugins, trained)
    return expected


def expected_seconds(
    cell: Cell, splits: Mapping[str, Split], device: torch.device, plugins: PluginManager, trained: bool = False
) -> float:
    """Return how long a cell should take, from an outer update and a test episode of a freshly built algorithm.

    Args:
        cell: that is to be run.
        splits: of its dataset.
        device: where it runs.
        plugins: who provides the classes.
        trained: whether it has its weights from the training of another cell.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), deterministic(), tf32(cell.precision == "tf32"):
        algorithm = build(cell, image_shape_of(splits), device, plugins)
        train = training_stream(cell, splits, device)
        test = evaluation_stream(cell, splits, device)
        batch = min(cell.train.meta_batch, _AT_ONCE)
        training = 0.0
        if not trained:
            step = _median_seconds(device, lambda i: algorithm.meta_step(train.batch(i * batch, batch)))
            training = cell.train.steps * cell.train.meta_batch * step / batch
        seconds, alone = _timed_predictions(algorithm, test, cell.test.seed, device)
    validations = -(-cell.train.steps // cell.train.validate_every) * cell.train.validation_episodes
    # Testing includes the latency, and the probe for transduction: about fifty episodes.
    tested = validations + cell.test.episodes + 50
    return training + tested * seconds + cell.test.inductive_episodes * alone


def shorter_profiles(file: SuiteFile, suite: Suite, plugins: PluginManager) -> list[str]:
    """Return the profiles that show their algorithms less than half as many images, in all, as `suite` does."""
    images = {name: _images(make_plan(*resolve(file, name), plugins)) for name in ["", *file.profiles]}
    return [name for name in file.profiles if images[name] < images[suite.profile] / 2]


def _images(cells: Sequence[Cell]) -> int:
    tested = sum(cell.test.episodes * cell.shape.images for cell in cells)
    trainings = [sharing[0].train for sharing in sharing_a_training(cells).values()]
    return tested + sum(train.steps * train.meta_batch * train.shape.images for train in trainings)


def _timed_predictions(
    algorithm: Algorithm, stream: EpisodeStream, seed: int, device: torch.device
) -> tuple[float, float]:
    """Return the seconds of a test episode, and those of its queries alone where these are to be classified, too."""
    predict(algorithm, stream.batch(0, 1), seed, 0)  # warm-up
    watch = Stopwatch(device)
    with watch.running():
        transductive = is_transductive(algorithm, stream, seed, _AT_ONCE)
    alone = Stopwatch(device)
    if transductive:
        # An algorithm that cannot do with a single query is tested all the same, and a remark says why.
        with suppress(Exception), alone.running():
            predict(algorithm, first_of_each_class(stream.batch(0, 1)), seed, 0, alone=True)
    return watch.seconds / (2 * _AT_ONCE), alone.seconds


def _median_seconds(device: torch.device, work: Callable[[int], object]) -> float:
    """Return the median time of three pieces of work, after one that is not counted."""
    seconds = []
    for i in range(4):
        watch = Stopwatch(device)
        with watch.running():
            work(i)
        seconds.append(watch.seconds)
    return statistics.median(seconds[1:])
