"""Plan a suite and load its data in workers, which a plugin may end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from metabench.data.packing import DataRoots, load_splits
from metabench.engine.progress import Watcher
from metabench.errors import PluginError
from metabench.executors.processes import Died, run_job
from metabench.planning.cells import Cell, Choice
from metabench.planning.fitting import datasets_of
from metabench.planning.plan import make_plan
from metabench.planning.suite import Suite
from metabench.planning.suite_file import SuiteFile
from metabench.planning.targets import Targets
from metabench.registry.manager import PluginManager

if TYPE_CHECKING:  # imports torch, which a dry run does not need
    from metabench.api import Progress


@dataclass(frozen=True)
class Planning:
    """`make_plan` as the work of a worker (`metabench.executors.processes.Job`).

    Attributes:
        suite: the resolved suite.
        file: the suite file, for the lines in error messages.
        problems: problems of entries that ended an earlier worker, by place.
    """

    suite: Suite
    file: SuiteFile
    problems: Mapping[str, str]

    def run(self, watcher: Watcher) -> Iterator[list[Cell]]:
        """Load the plugins, and plan; report the place of each entry before its class is asked."""
        plugins = PluginManager.from_environment()
        targets = Targets(self.file, plugins, lambda place: watcher.phase(place, 1), self.problems)
        yield make_plan(self.suite, self.file, plugins, targets)


@dataclass(frozen=True)
class Loading:
    """Loading a dataset as the work of a worker (`metabench.executors.processes.Job`).

    Attributes:
        choice: the dataset.
    """

    choice: Choice

    def run(self, watcher: Watcher) -> Iterator[str]:
        """Pack the dataset if needed, and check it; yield its fingerprint."""
        dataset = PluginManager.from_environment().build_dataset(self.choice.name, self.choice.params)
        phase = ("", 0)

        def progress(done: int, total: int, name: str) -> None:
            nonlocal phase
            if (name, total) != phase:
                watcher.phase(name, total)
                phase = (name, total)
            watcher.advance(done)

        yield load_splits(self.choice.name, dataset, DataRoots.from_environment(os.environ), progress).fingerprint


def plan_in_worker(suite: Suite, file: SuiteFile) -> list[Cell]:
    """Return the result of `make_plan`; an entry whose class ends the worker has a problem in all its cells.

    Raises:
        SuiteError, PluginError: as `make_plan`; or the worker ends before a class is asked.
    """
    problems: dict[str, str] = {}
    while True:
        planned = _LastPlace()
        result = run_job(Planning(suite, file, problems), 1, planned)
        if not isinstance(result, Died):
            cells: list[Cell] = result
            return cells
        if not planned.place or planned.place in problems:
            raise PluginError(f"planning failed: {result.problem}")
        problems[planned.place] = f"{planned.place}: when it was planned, {result.problem}"


def load_in_workers(
    cells: Sequence[Cell], progress: Callable[[], AbstractContextManager[Progress]]
) -> tuple[list[Cell], dict[str, str]]:
    """Load each dataset once, packing it first if needed.

    Args:
        cells: the cells that will run.
        progress: opens a progress display for packing one dataset.

    Returns:
        The cells, with a problem where the dataset's class ended its worker; the fingerprints by label.

    Raises:
        DataError: raw data is missing or damaged, or the cache is not writable.
    """
    from metabench.machine.device import share_of_threads

    fingerprints: dict[str, str] = {}
    problems: dict[str, str] = {}
    for choice in datasets_of(cells).values():
        with progress() as report:
            result = run_job(Loading(choice), share_of_threads(1), _Shown(report))
        if isinstance(result, Died):
            problems[choice.label] = f"datasets.{choice.label}: when it was loaded, {result.problem}"
        else:
            fingerprints[choice.label] = result

    def problem(cell: Cell) -> str:
        labels = (cell.dataset.label, cell.training.dataset.label)
        return cell.problem or next((problems[label] for label in labels if label in problems), "")

    return [replace(cell, problem=problem(cell)) for cell in cells], fingerprints


@dataclass
class _LastPlace:
    """The watcher of `Planning`: remembers the place of the last entry."""

    place: str = ""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self.place = name

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return False


@dataclass
class _Shown:
    """The watcher of `Loading`: shows the progress of packing."""

    report: Progress
    name: str = ""
    total: int = 0

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self.name, self.total = name, total

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""
        self.report(done, self.total, self.name)

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return False
