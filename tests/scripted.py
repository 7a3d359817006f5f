"""Jobs that do what a script says, and a run of them without an engine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metabench.conformance import made_up_run
from metabench.conformance.executors import TrialCell
from metabench.contracts import Attempt, Cell, Interrupted, Job, Limits, Record, Resources, RunOptions, Store, Watcher
from metabench.executors.driver import run_work
from metabench.registry.manager import PluginManager

#: What a cell's test may do: ``ok``; die by a signal, each time or the first time only; end its process by an exit
#: code; never come back; go on until it is asked to stop.
ACTIONS = ("ok", "killed", "killed once", "exits", "hangs", "goes on")


@dataclass(frozen=True)
class Scripted:
    """A job whose cells do what their title says; each try of a cell is a line of the log."""

    key: str
    log: Path
    cells: Sequence[TrialCell]
    after: Sequence[str] = ()
    needs: Resources = field(default_factory=Resources)

    @property
    def title(self) -> str:
        return f"job {self.key}"

    def with_cells(self, cells: Sequence[Any]) -> Scripted:
        return replace(self, cells=cells)

    def run(self, watcher: Watcher) -> Iterator[Attempt | None]:
        for cell in self.cells:
            first = f"{cell.id}\n" not in (self.log.read_text() if self.log.exists() else "")
            with open(self.log, "a", encoding="ascii") as log:
                log.write(f"{cell.id}\n")
            watcher.phase("test", 10)
            action = cell.title
            if action == "killed" or (action == "killed once" and first):
                os.kill(os.getpid(), signal.SIGKILL)
            if action == "exits":
                os._exit(3)
            if action == "hangs":
                threading.Event().wait()
            while action == "goes on":
                watcher.advance(1)
                if watcher.should_stop():
                    raise Interrupted
                threading.Event().wait(0.02)
            yield Attempt(record(cell, f"GPU {os.environ.get('CUDA_VISIBLE_DEVICES')}, process {os.getpid()}"))
        if not self.cells:
            yield None


def cell(number: int, action: str = "ok") -> TrialCell:
    """Return a cell that does something."""
    return TrialCell(f"{number:016x}", title=action, labels={"algorithm": action, "seed": str(number)})


def record(of: Cell, error: str) -> Record:
    """Return the record of a cell, which says what it saw as its error."""
    return Record.model_validate({**made_up_run.failed(error), "cell": of.id})


@dataclass
class Work:
    """A run of scripted jobs."""

    queue: Sequence[Scripted]
    kept: Mapping[str, Record] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)

    @property
    def cells(self) -> Sequence[TrialCell]:
        return [cell for job in self.queue for cell in job.cells]

    def introduce(self, console: Any) -> None: ...

    def jobs(self) -> Sequence[Job]:
        return self.queue

    def failed(self, cell: Cell, problem: str) -> Record:
        return record(cell, problem)


@dataclass
class Watching:
    """Shows nothing; remembers what is tried again, and may ask to stop."""

    stop: Callable[[], bool] = lambda: False
    retried: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    phases: list[tuple[str, int, int]] = field(default_factory=list)

    def cell_started(self, cell: Cell, number: int, of: int) -> Watching:
        self.started.append(cell.id)
        return self

    def job_started(self, job: Job) -> Watching:
        self.started.append(job.key)
        return self

    def job_retried(self, job: Job, reason: str) -> None:
        self.retried.append(reason)

    def job_done(self, job: Job, problem: str) -> None: ...

    def cell_done(self, record: Record, kept: bool) -> None: ...

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.phases.append((name, total, done))

    def advance(self, done: int, note: str = "") -> None: ...

    def should_stop(self) -> bool:
        return self.stop()


def run(queue: Sequence[Scripted], output: Path, watching: Watching | None = None, **options: Any) -> list[str]:
    """Run jobs; return what the record of each cell says."""
    store = Store(output)
    with store.locked():
        records = run_work(Work(queue), PluginManager([]), store, watching or Watching(), RunOptions(**options))
    assert [found.cell for found in records] == [cell.id for job in queue for cell in job.cells]
    return [str(found.error) for found in records]


def tries(log: Path) -> dict[int, int]:
    """Return how often each cell was tried."""
    numbers = [int(line, 16) for line in log.read_text(encoding="ascii").split()]
    return {number: numbers.count(number) for number in numbers}


LIMITS = Resources(limits=Limits(test=1.0))
