"""Checks and benchmarks for the tests of plugins, under pytest.

Three lines check an algorithm against the contract of `metabench.api.Algorithm`, and likewise other kinds of plugins::

    from metabench.testing import AlgorithmChecks

    class TestMine(AlgorithmChecks):
        algorithm = "mine"

Three more time the cells of a suite with pytest-benchmark::

    from metabench.testing import SuiteBenchmarks

    class TestSpeed(SuiteBenchmarks):
        suite = "../suite.yaml"
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
import torch

from metabench.api import Algorithm, Episodes
from metabench.conformance import (
    algorithms,
    backbones,
    checks,
    datasets,
    engines,
    executors,
    loggers,
    metrics,
    regressors,
    sources,
)
from metabench.conformance.subjects import SmallNetwork, Subject
from metabench.data.packing import DataRoots, load_splits
from metabench.engine.asking import predict
from metabench.engine.learner import build_tested
from metabench.engine.precision import tf32
from metabench.engine.scaling import scaled
from metabench.engine.steps import training_batches
from metabench.engine.streams import Stream, evaluation_stream
from metabench.engine.subsets import splits_of
from metabench.engine.trial import set_batchings
from metabench.errors import Unfit
from metabench.machine.clock import synchronise
from metabench.machine.device import choose_device, describe_device
from metabench.machine.memory import BatchSize
from metabench.machine.reproducible import deterministic
from metabench.planning.cells import Cell
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import read_suite, resolve
from metabench.registry.manager import PluginManager

__all__ = [
    "AlgorithmChecks",
    "BackboneChecks",
    "DatasetChecks",
    "EngineChecks",
    "EpisodeSourceChecks",
    "ExecutorChecks",
    "LoggerChecks",
    "MetricChecks",
    "RegressorChecks",
    "SmallNetwork",
    "SuiteBenchmarks",
]


class AlgorithmChecks:
    """Checks an algorithm; subclass it as ``Test…``.

    Attributes:
        algorithm: name of the algorithm, as its plugin announces it.
        params: its parameters.
        transductive: whether a query's scores may depend on the other queries.
        steps: most outer updates, of two episodes each, until the algorithm must beat chance.
    """

    algorithm: ClassVar[str]
    params: ClassVar[Mapping[str, Any]] = {}
    transductive: ClassVar[bool] = False
    steps: ClassVar[int] = 400

    @pytest.mark.parametrize("check", list(algorithms.CHECKS))
    def test_conforms(self, check: str) -> None:
        """Run one of `metabench.conformance.algorithms.CHECKS`."""
        subject = Subject(self.algorithm, self.params, self.transductive, self.steps)
        checks.run(algorithms.CHECKS[check], subject)


class RegressorChecks(AlgorithmChecks):
    """Checks an algorithm on regression; subclass it as ``Test…``, beside `AlgorithmChecks` if it classifies, too.

    Attributes are as in `AlgorithmChecks`; `steps` are of eight episodes each.
    """

    @pytest.mark.parametrize("check", list(regressors.CHECKS))
    def test_conforms(self, check: str) -> None:
        """Run one of `metabench.conformance.regressors.CHECKS`."""
        subject = regressors.Subject(self.algorithm, self.params, self.transductive, self.steps)
        checks.run(regressors.CHECKS[check], subject)


class BackboneChecks:
    """Checks a backbone; subclass it as ``Test…``.

    Attributes:
        backbone: name of the backbone, as its plugin announces it.
        params: its parameters.
        image_shapes: (C, H, W) of the images to try. The backbone takes at least one, and refuses others by a
            `metabench.api.Unfit` that names their height and width.
    """

    backbone: ClassVar[str]
    params: ClassVar[Mapping[str, Any]] = {}
    image_shapes: ClassVar[Sequence[tuple[int, int, int]]] = backbones.IMAGE_SHAPES

    @pytest.mark.parametrize("check", list(backbones.CHECKS))
    def test_conforms(self, check: str) -> None:
        """Run one of `metabench.conformance.backbones.CHECKS`."""
        checks.run(backbones.CHECKS[check], backbones.Subject(self.backbone, self.params, self.image_shapes))


class DatasetChecks:
    """Checks a dataset, packed into a temporary cache; subclass it as ``Test…``.

    METABENCH_DATA names the folders of the raw data.

    Attributes:
        dataset: name of the dataset, as its plugin announces it.
        params: its parameters.
    """

    dataset: ClassVar[str]
    params: ClassVar[Mapping[str, Any]] = {}

    @pytest.mark.parametrize("check", list(datasets.CHECKS))
    def test_conforms(self, check: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Run one of `metabench.conformance.datasets.CHECKS`."""
        # All checks of a session share the packs, whose names contain code and parameters.
        cache = tmp_path_factory.getbasetemp() / "metabench-packs"
        roots = replace(DataRoots.from_environment(os.environ), cache=cache)
        checks.run(datasets.CHECKS[check], datasets.Subject(self.dataset, roots, self.params))


class EpisodeSourceChecks:
    """Checks a source of episodes; subclass it as ``Test…``.

    Attributes:
        source: name of the source, as its plugin announces it among the datasets.
        params: its parameters.
    """

    source: ClassVar[str]
    params: ClassVar[Mapping[str, Any]] = {}

    @pytest.mark.parametrize("check", list(sources.CHECKS))
    def test_conforms(self, check: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Run one of `metabench.conformance.sources.CHECKS`."""
        cache = tmp_path_factory.getbasetemp() / "metabench-packs"
        roots = replace(DataRoots.from_environment(os.environ), cache=cache)
        checks.run(sources.CHECKS[check], sources.Subject(self.source, self.params, roots=roots))


class MetricChecks:
    """Checks a metric; subclass it as ``Test…``.

    Attributes:
        metric: name of the metric, as its plugin announces it.
    """

    metric: ClassVar[str]

    @pytest.mark.parametrize("check", list(metrics.CHECKS))
    def test_conforms(self, check: str) -> None:
        """Run one of `metabench.conformance.metrics.CHECKS`."""
        checks.run(metrics.CHECKS[check], metrics.Subject(self.metric))


class EngineChecks:
    """Checks an engine by a small suite of it; subclass it as ``Test…``.

    Attributes:
        suite: file of the suite, relative to the test file.
        profile: profile of the suite; None takes the default profile.
    """

    suite: ClassVar[str]
    profile: ClassVar[str | None] = None

    @pytest.mark.parametrize("check", list(engines.CHECKS))
    def test_conforms(self, check: str) -> None:
        """Run one of `metabench.conformance.engines.CHECKS`."""
        path = Path(inspect.getfile(type(self))).parent / self.suite
        checks.run(engines.CHECKS[check], engines.Subject(path, self.profile))


class ExecutorChecks:
    """Checks an executor by small jobs that it runs; subclass it as ``Test…``.

    Attributes:
        executor: name of the executor, as its plugin announces it, or a file of its options, relative to the test file.
        folder: a folder that its workers see, too; None takes one for temporary files of this computer.
        seconds: most seconds until a job has run.
    """

    executor: ClassVar[str]
    folder: ClassVar[Path | None] = None
    seconds: ClassVar[float] = 120.0

    @pytest.mark.parametrize("check", list(executors.CHECKS))
    def test_conforms(self, check: str) -> None:
        """Run one of `metabench.conformance.executors.CHECKS`."""
        beside = Path(inspect.getfile(type(self))).parent / self.executor
        name = str(beside) if beside.is_file() else self.executor
        checks.run(executors.CHECKS[check], executors.Subject(name, self.folder, self.seconds))


class LoggerChecks:
    """Checks a logger by the records of a made-up suite, ``plugin-check``; subclass it as ``Test…``.

    A logger that sends records to a server does so: let the environment name one for tests.

    Attributes:
        logger: name of the logger, as its plugin announces it.
        seconds: most seconds that a call of a hook may take.
    """

    logger: ClassVar[str]
    seconds: ClassVar[float] = loggers.SECONDS

    @pytest.mark.parametrize("check", list(loggers.CHECKS))
    def test_conforms(self, check: str) -> None:
        """Run one of `metabench.conformance.loggers.CHECKS`."""
        checks.run(loggers.CHECKS[check], loggers.Subject(self.logger, self.seconds))


class Benchmark(Protocol):
    """The used part of pytest-benchmark's fixture."""

    extra_info: dict[str, Any]

    def __call__(self, function: Callable[[], object]) -> object:
        """Time repeated calls of a function."""


class SuiteBenchmarks:
    """Times the cells of a suite; subclass it as ``Test…``.

    Each cell has two pytest-benchmark tests: one outer update, and the prediction of one batch of test episodes, both
    including their data. ``--benchmark-autosave``, ``--benchmark-compare`` and so on work as for any benchmark.

    Attributes:
        suite: name of the suite, or its file relative to the test file.
        profile: profile of the suite; None takes the default profile.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    suite: ClassVar[str]
    profile: ClassVar[str | None] = None
    device: ClassVar[str] = "cpu"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrise the tests with the cells of the suite."""
        if "cell" in metafunc.fixturenames:
            plugins = PluginManager.from_environment()
            path = Path(inspect.getfile(type(self))).parent / self.suite
            file = read_suite(path if path.is_file() else plugins.suite_path(self.suite))
            cells = make_plan(*resolve(file, self.profile), plugins)
            metafunc.parametrize("cell", cells, ids=[_name(cell) for cell in cells])

    def test_train_step(self, benchmark: Benchmark, cell: Cell) -> None:
        """Time outer updates, data included."""
        if cell.training.schedule is None:
            pytest.skip(f"{cell.title}: nothing is trained")
        work = _Work(cell, self.device)
        work.algorithm.train()
        self._time(benchmark, work, work.batch, lambda i: work.algorithm.train_step(work.batches(i)))

    def test_predict(self, benchmark: Benchmark, cell: Cell) -> None:
        """Time predictions of test episodes, data included."""
        work = _Work(cell, self.device)
        batch, seed = BatchSize(work.device, cell.test.batch).size, cell.test.seed
        self._time(
            benchmark,
            work,
            batch,
            lambda i: predict(work.algorithm, work.test.batch(i * batch, batch), seed, i * batch),
        )

    @staticmethod
    def _time(benchmark: Benchmark, work: _Work, episodes: int, call: Callable[[int], object]) -> None:
        rounds = 0

        def timed() -> None:
            nonlocal rounds
            call(rounds)
            rounds += 1
            synchronise(work.device)

        cuda = [work.device] if work.device.type == "cuda" else []
        with deterministic(), tf32(work.tf32), torch.random.fork_rng(devices=cuda):
            timed()  # warm-up
            benchmark(timed)
        benchmark.extra_info.update(episodes=episodes, device=describe_device(work.device))


class _Work:
    """A cell's algorithm with its training and test episodes."""

    def __init__(self, cell: Cell, device: str) -> None:
        plugins = PluginManager.from_environment()
        dataset = plugins.build_dataset(cell.dataset.name, cell.dataset.params)
        roots = DataRoots.from_environment(os.environ)
        splits = load_splits(cell.dataset.name, dataset, roots, lambda done, total, what: None).splits
        self.device = choose_device(device)
        self.tf32 = cell.training.precision == "tf32"
        splits = dict(splits_of(cell.training, splits))
        with torch.random.fork_rng(devices=[]):
            try:
                self.algorithm: Algorithm = build_tested(cell, splits, self.device, plugins)
                splits = scaled(splits, self.algorithm.backbone)
            except Unfit as error:
                pytest.skip(f"{cell.title}: {error}")
            schedule = cell.training.schedule
            self.test: Stream = evaluation_stream(cell, splits, self.device)
            tested = self.test.batch(0, 1 if self.test.varies else 2)
            if schedule is None:  # predictions are timed all the same
                set_batchings(self.algorithm, tested, trains=False)
                return
            self.batch = schedule.batch
            self.batches = training_batches(cell.training, splits, self.device)
            first = self.batches(0)
            few = first[: min(2, self.batch)] if isinstance(first, Episodes) else tested
            set_batchings(self.algorithm, few)


def _name(cell: Cell) -> str:
    shape = str(cell.shape).replace(" ", "-")
    return f"{cell.algorithm.label}-{cell.dataset.label}-{shape}-{cell.backbone.label}-seed{cell.seed}"
