"""Build and time each setup before a run, to refuse bad cells and predict its time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from metabench.api import SourceSplit, Split
from metabench.data.packing import DataRoots
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.steps import steps_of
from metabench.engine.streams import evaluation_stream
from metabench.engine.subsets import splits_of
from metabench.executors.loading import load_datasets
from metabench.executors.pace import Pace, timed
from metabench.executors.processes import Died, run_job
from metabench.machine.device import choose_device
from metabench.planning.cells import Cell, sharing_a_training
from metabench.planning.suite import Suite
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.registry.manager import PluginManager

#: Images of an epoch where profiles are compared before any data are loaded: miniImageNet has as many.
_EPOCH = 38_400


def rehearse(
    cells: Sequence[Cell],
    splits: Mapping[str, Mapping[str, Split | SourceSplit]],
    device: torch.device,
    plugins: PluginManager,
    weights: Collection[str] = (),
    watcher: Watcher | None = None,
) -> dict[str, float]:
    """Return the expected seconds of each cell; empty if a setup fails.

    Cells of one setup differ only in seeds, labels or numbers of steps and episodes; it is built and timed once.

    Args:
        cells: the cells that will run.
        splits: the splits of each dataset, by its label.
        device: the device that they run on.
        plugins: the provider of the classes.
        weights: ids of the trainings whose weights an earlier run has kept.
        watcher: sees the progress, and may ask to stop between two setups.

    Raises:
        DataError: a file of episodes names a class or an image that a dataset has not.
        Interrupted: `watcher` asked to stop.
        SuiteError: an algorithm or backbone refuses its cell (a `ValueError` of its constructor).
    """
    for cell in {cell.dataset.label: cell for cell in cells if cell.test.file}.values():
        evaluation_stream(cell, splits[cell.dataset.label], device)  # refuses unknown names before a training
    paces: dict[str, Pace | None] = {}
    embeddings: dict[str, float] = {}
    if watcher:
        watcher.phase("setup", len({_setup(cell) for cell in cells}))
    for cell in cells:
        setup = _setup(cell)
        if setup in paces:
            continue
        paces[setup] = timed(
            cell, splits[cell.training.dataset.label], splits[cell.dataset.label], device, plugins, embeddings
        )
        if watcher:
            watcher.advance(len(paces))
            if watcher.should_stop():
                raise Interrupted
    expected, embedded = {}, set[str]()
    for sharing in sharing_a_training(cells).values():
        for cell in sharing:
            pace = paces[_setup(cell)]
            if pace is None:
                return {}
            schedule, steps = cell.training.schedule, 0
            if schedule and pace.test_episode:  # else it will be skipped
                steps = steps_of(schedule, splits_of(cell.training, splits[cell.training.dataset.label])["train"])
            expected[cell.id] = pace.seconds(cell, steps, cell is not sharing[0], cell.training.id in weights)
            if pace.embedded_by not in embedded:
                expected[cell.id] += pace.embedding
            if pace.embedded_by is not None:
                embedded.add(pace.embedded_by)
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
        yield rehearse(self.cells, splits, self.device, plugins, self.weights, watcher)


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
