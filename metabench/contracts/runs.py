"""What command, engine and driver say to one another: plan, work, job, attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from metabench.contracts.executor import Executor, Resources
from metabench.engine.progress import Watcher
from metabench.errors import PluginError
from metabench.planning.suite import Precision
from metabench.planning.suite_file import SuiteFile
from metabench.records.measured import Estimate
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.records.values import Status
from metabench.registry.manager import PluginManager
from metabench.registry.own import FEW_SHOT, PROCESSES

if TYPE_CHECKING:  # planning must not import numpy
    from metabench.analysis.stats import Floats


@dataclass(frozen=True)
class RunOptions:
    """How a run treats earlier files, and where its jobs run.

    Attributes:
        fresh: delete earlier checkpoints and weights first, and the record of a cell when it starts.
        jobs: how many jobs run at once, each in a worker with its share of the threads.
        keep_weights: whether the selected weights stay in the output directory.
        reselect: whether to train again where kept weights lack a selection.
        in_process: whether jobs run in this process, one after the other, instead of in workers.
        confirm: whether each cell's weights are tested once more, on other test episodes; the plan then has a further
            cell for each, whose record `confirms` it.
        executor: where jobs run; None means workers of this computer, `jobs` at once.
        executor_name: the name of that executor, for records.
        retries: how often a job is tried again whose machine has died.
        detach: whether to leave the jobs to an executor that outlives this process, and return.
    """

    fresh: bool = False
    jobs: int = 1
    keep_weights: bool = True
    reselect: bool = False
    in_process: bool = False
    confirm: bool = False
    executor: Executor | None = None
    executor_name: str = PROCESSES
    retries: int = 2
    detach: bool = False


@dataclass(frozen=True)
class Request:
    """What the command line asks of a suite.

    Attributes:
        profile: the profile; None takes the suite's own default, ``""`` none.
        seeds: training seeds instead of the suite's; None keeps them.
        precision: number format instead of the suite's; None keeps it.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        options: see `RunOptions`.
    """

    profile: str | None = None
    seeds: Sequence[int] | None = None
    precision: Precision | None = None
    device: str = "auto"
    options: RunOptions = field(default_factory=RunOptions)


class Cell(Protocol):
    """A row of the leaderboard for one seed."""

    @property
    def id(self) -> str:
        """Return the hash of `identity`, the name of its record."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return all settings that determine the result, as plain data; ``"seed"`` is the training seed."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Return what ``--only`` selects by: ``"algorithm"``, ``"dataset"``, ``"backbone"``, …."""

    @property
    def title(self) -> str:
        """Return a one-line description for people."""

    @property
    def problem(self) -> str:
        """Return why it cannot run; empty if it can."""


@dataclass(frozen=True)
class Attempt:
    """The result of running a cell once.

    Attributes:
        record: the cell's record.
        episodes: its per-episode results; None if it failed or was skipped.
        picture: a PNG file for the report; None without one.
        traceback: the traceback of an unexpected error; empty otherwise.
    """

    record: Record
    episodes: EpisodeResults | None = None
    picture: bytes | None = None
    traceback: str = ""


@dataclass(frozen=True)
class Problem:
    """Why a job without cells, or a cell, has no result.

    Attributes:
        problem: the message.
        status: failed or skipped.
        traceback: the traceback of an unexpected error; empty otherwise.
    """

    problem: str
    status: Status = "failed"
    traceback: str = ""


class Job(Protocol):
    """Work that gives its cells records; it must be picklable, unless it runs in this process."""

    @property
    def key(self) -> str:
        """Return its name, which is that of its checkpoint and weights."""

    @property
    def after(self) -> Sequence[str]:
        """Return the keys of the jobs that must end before it starts."""

    @property
    def cells(self) -> Sequence[Cell]:
        """Return its cells, in the order of their attempts; none if only other jobs need its weights."""

    @property
    def title(self) -> str:
        """Return a one-line description for people."""

    @property
    def needs(self) -> Resources:
        """Return what it needs beside threads and memory, which the executor's options say."""

    def with_cells(self, cells: Sequence[Cell]) -> Job:
        """Return the job with some of its cells only: the others have their records."""

    def run(self, watcher: Watcher) -> Iterator[Attempt | Problem | None]:
        """Yield the attempt of each cell; without cells, yield the problem or None.

        Raises:
            Interrupted: the watcher asked to stop; what has been done is on disk.
            MetabenchError: an error that must end the run.
        """


class Console(Protocol):
    """Shows what happens before the cells run."""

    @property
    def interrupted(self) -> bool:
        """Return whether the user asked to stop."""

    def say(self, text: str) -> None:
        """Print a line."""

    def watching(self, title: str) -> AbstractContextManager[Watcher]:
        """Show the progress of some work."""


#: Opens a progress display for the preparation of one dataset: called with (done, total, name of the work).
Packing = Callable[[], AbstractContextManager[Callable[[int, int, str], None]]]


class Work(Protocol):
    """A run that is ready: its data are loaded, and its kept records known."""

    @property
    def cells(self) -> Sequence[Cell]:
        """Return the cells that are to have a record, with the problems that loading has shown."""

    @property
    def kept(self) -> Mapping[str, Record]:
        """Return the good records of earlier runs, by cell."""

    @property
    def expected(self) -> Mapping[str, float]:
        """Return the expected seconds of each cell; empty if unknown."""

    def introduce(self, console: Console) -> None:
        """Print the number of cells, the device, and the expected time.

        Raises:
            Interrupted: the user asked to stop.
            MetabenchError: a cell is refused.
        """

    def jobs(self) -> Sequence[Job]:
        """Return the jobs that give records to the cells without one, in starting order."""

    def failed(self, cell: Cell, problem: str) -> Record:
        """Return the record of a cell that could not be tried, or that ended its worker."""


class Plan(Protocol):
    """A planned suite."""

    @property
    def name(self) -> str:
        """Return the suite's name."""

    @property
    def profile(self) -> str:
        """Return the profile's name; empty without one."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the resolved suite as plain data: a suite of this engine, without profiles."""

    @property
    def cells(self) -> Sequence[Cell]:
        """Return all cells of the suite."""

    def lines(self, cells: Sequence[Cell]) -> Iterable[str]:
        """Return a line on each cell, for ``--dry-run``."""

    def prepare(self, cells: Sequence[Cell], earlier: Mapping[str, Record], store: Store, packing: Packing) -> Work:
        """Load the data; nothing is written into the store.

        Args:
            cells: the cells that are to have a record.
            earlier: the records of earlier runs that may be kept, by cell.
            store: the output directory.
            packing: opens a progress display.
        """


class Engine(Protocol):
    """A way to plan suites and to run their cells; constructed with the plugins.

    Its module, and `plan`, do not import torch.
    """

    def __init__(self, plugins: PluginManager) -> None: ...

    def plan(self, file: SuiteFile, request: Request) -> Plan:
        """Check a suite, and return its plan.

        Raises:
            SuiteError: the suite is wrong; `SuiteFile.error` names file and line.
            PluginError: a plugin that it names cannot be used.
        """


def estimate(values: Floats) -> Estimate:
    """Return the mean of a metric with its 95 % interval over episodes.

    Args:
        values: [n] values of the episodes, n ≥ 2.
    """
    from metabench.analysis.stats import mean_interval

    interval = mean_interval(values)
    return Estimate(value=interval.mean, ci95=interval.ci95, std=interval.std, episodes=interval.episodes)


def engine_of(file: SuiteFile, plugins: PluginManager) -> Engine:
    """Return the engine that a suite names, or the few-shot engine.

    Raises:
        SuiteError: no plugin provides it, or it cannot be imported or constructed.
    """
    name = str(file.data.get("engine", FEW_SHOT))
    try:
        engine: Engine = plugins.engine_class(name)(plugins)
    except PluginError as error:
        raise file.error(("engine",), str(error)) from error
    return engine
