"""Jobs that count: a training is a number that grows, a step a line in a log; no torch, no images."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metabench.contracts import (
    Attempt,
    Cell,
    Data,
    Declaration,
    EpisodeResults,
    Interrupted,
    Limits,
    Machine,
    Record,
    Resources,
    Watcher,
    estimate,
)
from metabench.files import atomic_file
from metabench.planning.cells import content_hash

SCORE = Declaration(title="score", summary="a number of the test")


def finished_record(cell: str, **changes: Any) -> Record:
    """Return the record of a cell that is ok, or of another status."""
    fields: dict[str, Any] = {
        **{"cell": cell, "suite": "counted", "profile": "", "algorithm": "counter", "dataset": "numbers"},
        **{"backbone": "none", "way": 2, "shot": 1, "queries": 1, "seed": 0, "identity": {}, "task": "regression"},
        **{"status": "ok", "ranked_by": "score", "declarations": {"score": SCORE}, "device": "a processor"},
        **{"machine": Machine(kind="cpu", name="a processor"), "dataset_fingerprint": "numbers", "environment": {}},
        **{"metrics": {"score": estimate(np.array([1.0, 2.0]))}, "finished": "2026-01-01"},
        "data": Data(episodes="numbers", raw_files=0),
    }
    return Record(**{**fields, **changes})


@dataclass(frozen=True)
class Counted:
    """A test of a training, by its number."""

    training: str
    number: int
    fault: str = ""
    problem: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        return {"training": self.training, "number": self.number, "seed": 0}

    @property
    def id(self) -> str:
        return content_hash(self.identity)

    @property
    def labels(self) -> dict[str, str]:
        return {"algorithm": self.training, "dataset": "numbers", "backbone": "none"}

    @property
    def title(self) -> str:
        return f"test {self.number} of {self.training}"


@dataclass(frozen=True)
class Counting:
    """A training of some steps, which writes a checkpoint every few, and its tests.

    Every step, every test and every result that is on disk adds a line to the log of its training: what it is, its
    number, its process.
    """

    key: str
    cells: Sequence[Cell]
    after: Sequence[str] = ()
    folder: Path = Path()
    steps: int = 20
    every: int = 5
    seconds: float = 0.0
    needs: Resources = field(default_factory=Resources)

    @classmethod
    def of(cls, key: str, tests: int = 1, after: Sequence[str] = (), **fields: Any) -> Counting:
        return cls(key, [Counted(key, number) for number in range(tests)], tuple(after), **fields)

    @property
    def title(self) -> str:
        return f"training of {self.key}"

    def with_cells(self, cells: Sequence[Cell]) -> Counting:
        return replace(self, cells=cells)

    def run(self, watcher: Watcher) -> Iterator[Attempt | None]:
        checkpoint, weights = self.folder / f"{self.key}.checkpoint", self.folder / f"{self.key}.weights"
        step = int((weights if weights.exists() else checkpoint).read_text()) if _any(checkpoint, weights) else 0
        watcher.phase("train", self.steps, step)
        while step < self.steps:
            if watcher.should_stop():
                self.write(checkpoint, step)
                raise Interrupted
            self.log("step", step)
            time.sleep(self.seconds)
            step += 1
            if step % self.every == 0:
                self.write(checkpoint, step)
            watcher.advance(step)
        self.write(weights, step)
        if not self.cells:
            yield None
        for cell in self.cells:
            yield Attempt(*self.tested(cell, watcher))
            self.log("kept", cell.number)  # the worker goes on when it has written the result

    def tested(self, cell: Any, watcher: Watcher) -> tuple[Record, EpisodeResults]:
        watcher.phase("test", 4)
        time.sleep(self.seconds)
        values = values_of(cell)
        if cell.fault == "raises":
            raise ValueError("a bug")
        if cell.fault == "exits":
            os._exit(3)
        if cell.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        while cell.fault == "slow":
            time.sleep(0.01)
            watcher.advance(1)
        if cell.fault == "nan":
            values[0] = np.nan
        self.log("test", cell.number)
        results = {"metrics": {"score": estimate(values)}, "data": Data(episodes=cell.id, raw_files=0)}
        record = finished_record(cell.id, algorithm=self.key, identity=cell.identity, **results)
        return record, EpisodeResults({"score": values}, np.empty((4, 0), np.int64))

    def log(self, what: str, number: int) -> None:
        line = f"{what} {number} {os.getpid()}\n".encode()
        handle = os.open(self.folder / f"{self.key}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)

    def write(self, path: Path, step: int) -> None:
        with atomic_file(path) as temporary:
            temporary.write_text(str(step))


def values_of(cell: Any) -> npt.NDArray[np.float64]:
    """Return the results of a test: a function of its name."""
    return np.random.default_rng(int(cell.id, 16)).uniform(size=4)


@dataclass
class CountedWork:
    """A run of some jobs; see `metabench.contracts.Work`."""

    queue: Sequence[Counting]
    earlier: Mapping[str, Record] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)

    @property
    def cells(self) -> Sequence[Cell]:
        return [cell for job in self.queue for cell in job.cells]

    @property
    def kept(self) -> Mapping[str, Record]:
        return {name: record for name, record in self.earlier.items() if record.status == "ok"}

    def introduce(self, console: Any) -> None: ...

    def jobs(self) -> Sequence[Counting]:
        left = {job.key: [cell for cell in job.cells if cell.id not in self.kept] for job in self.queue}
        return [job.with_cells(left[job.key]) for job in self.queue if left[job.key]]

    def failed(self, cell: Any, problem: str) -> Record:
        return finished_record(
            cell.id, algorithm=cell.training, identity=cell.identity, status="failed", error=problem, metrics={}
        )


def many_cells(folder: Path, seconds: float = 0.0) -> list[Counting]:
    """Return 25 jobs with 200 cells, of which five are broken, each in its own way."""
    good = [Counting.of(f"good-{number}", 10 if number else 5, folder=folder, seconds=seconds) for number in range(20)]
    limits = Resources(limits=Limits(test=1.0))
    broken = [
        Counting(f"broken-{fault}", [Counted(f"broken-{fault}", 0, fault)], folder=folder, steps=2, needs=limits)
        for fault in ("raises", "exits", "killed", "slow", "nan")
    ]
    return [*good[:10], *broken, *good[10:]]


def _any(*paths: Path) -> bool:
    return any(path.exists() for path in paths)


class Silent:
    """Shows nothing, and never stops: the reporter, console and watcher of a run."""

    interrupted = False

    def say(self, text: str) -> None: ...

    @contextmanager
    def watching(self, title: str) -> Iterator[Silent]:
        yield self

    def cell_started(self, cell: Cell, number: int, of: int) -> Silent:
        return self

    def job_started(self, job: Any) -> Silent:
        return self

    def job_retried(self, job: Any, reason: str) -> None: ...

    def job_done(self, job: Any, problem: str) -> None: ...

    def cell_done(self, record: Record, kept: bool) -> None: ...

    def phase(self, name: str, total: int, done: int = 0) -> None: ...

    def advance(self, done: int, note: str = "") -> None: ...

    def should_stop(self) -> bool:
        return False
