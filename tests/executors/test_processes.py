from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch

from metabench.engine.progress import Interrupted, Watcher
from metabench.errors import StoreError
from metabench.executors.processes import Died, run_jobs


@dataclass
class Recorder:
    """A watcher that records the progress, and asks to stop at step `stop_at`."""

    stop_at: int | None = None
    phases: list[tuple[str, int, int]] = field(default_factory=list)
    done: int = 0
    notes: list[str] = field(default_factory=list)

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.phases.append((name, total, done))

    def advance(self, done: int, note: str = "") -> None:
        self.done = done
        self.notes += [note] if note else []

    def should_stop(self) -> bool:
        return self.stop_at is not None and self.done >= self.stop_at


@dataclass(frozen=True)
class Reporting:
    """A job that returns its number, process and threads."""

    number: int

    def run(self, watcher: Watcher) -> Iterator[tuple[int, int, int]]:
        watcher.phase("train", 10, self.number)
        watcher.advance(7, "a note")
        yield self.number, os.getpid(), torch.get_num_threads()


@dataclass(frozen=True)
class Killed:
    """A job whose worker is killed."""

    def run(self, watcher: Watcher) -> Iterator[None]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield


@dataclass(frozen=True)
class FullDisk:
    """A job that cannot write."""

    def run(self, watcher: Watcher) -> Iterator[None]:
        yield from ()
        raise StoreError("cannot write out: no space left on device")


@dataclass(frozen=True)
class Endless:
    """A job that runs until it is asked to stop; Ctrl-C in its worker does not end it."""

    def run(self, watcher: Watcher) -> Iterator[None]:
        yield from ()
        os.kill(os.getpid(), signal.SIGINT)
        watcher.phase("train", 10**9)
        begun, step = time.monotonic(), 0
        while time.monotonic() - begun < 60:
            step += 1
            watcher.advance(step)
            if watcher.should_stop():
                raise Interrupted
        raise AssertionError("nobody asked it to stop")


@dataclass(frozen=True)
class AlmostDone:
    """A job that finishes although it is asked to stop."""

    def run(self, watcher: Watcher) -> Iterator[str]:
        watcher.phase("train", 10**9)
        begun, step = time.monotonic(), 0
        while not watcher.should_stop() and time.monotonic() - begun < 60:
            step += 1
            watcher.advance(step)
        yield "done"


def test_jobs_run_in_workers_and_report_their_progress() -> None:
    watchers: dict[int, Recorder] = {}

    def started(job: Reporting) -> Recorder:
        watchers[job.number] = Recorder()
        return watchers[job.number]

    results = {job.number: result for job, result in run_jobs([Reporting(i) for i in range(3)], 2, 1, started)}
    assert {number: result[0] for number, result in results.items()} == {0: 0, 1: 1, 2: 2}
    assert len({process for _, process, _ in results.values()} | {os.getpid()}) == 4
    assert {threads for _, _, threads in results.values()} == {1}
    assert {number: watcher.phases for number, watcher in watchers.items()} == {i: [("train", 10, i)] for i in range(3)}
    assert {watcher.done for watcher in watchers.values()} == {7}
    assert {tuple(watcher.notes) for watcher in watchers.values()} == {("a note",)}


def test_a_killed_worker_reports_its_signal_and_other_jobs_continue() -> None:
    jobs: list[Reporting | Killed] = [Killed(), Reporting(1)]
    results = dict(run_jobs(jobs, 1, 1, lambda job: Recorder()))
    assert results[jobs[0]] == Died(-signal.SIGKILL)
    assert results[jobs[1]][0] == 1


def test_a_metabench_error_stops_the_other_workers() -> None:
    with pytest.raises(StoreError, match="no space left"):
        list(run_jobs([Endless(), FullDisk()], 2, 1, lambda job: Recorder()))


def test_a_watcher_that_asks_to_stop_stops_all_workers() -> None:
    jobs = []

    def started(job: Endless) -> Recorder:
        jobs.append(job)
        return Recorder(stop_at=1 if len(jobs) == 2 else None)

    with pytest.raises(Interrupted):
        list(run_jobs([Endless() for _ in range(3)], 2, 1, started))
    assert len(jobs) == 2, "no job starts after the request to stop"


def test_a_job_that_finishes_while_stopping_is_kept_and_the_run_is_interrupted() -> None:
    results = run_jobs([AlmostDone(), AlmostDone()], 1, 1, lambda job: Recorder(stop_at=1))
    assert next(results)[1] == "done"
    with pytest.raises(Interrupted):
        next(results)


@dataclass(frozen=True)
class Counting:
    """A job that yields numbers, and is killed after the last of them if it is odd."""

    last: int

    def run(self, watcher: Watcher) -> Iterator[int]:
        yield from range(self.last + 1)
        if self.last % 2:
            os.kill(os.getpid(), signal.SIGKILL)


def test_results_of_a_job_come_one_by_one_and_stay_if_its_worker_dies() -> None:
    results: dict[Counting, list[int | Died]] = {Counting(2): [], Counting(1): []}
    for job, result in run_jobs(list(results), 2, 1, lambda job: Recorder()):
        results[job].append(result)
    assert results == {Counting(2): [0, 1, 2], Counting(1): [0, 1, Died(-signal.SIGKILL)]}


def test_a_job_starts_after_those_that_it_needs() -> None:
    events: list[tuple[str, int]] = []

    def started(job: Reporting) -> Recorder:
        events.append(("start", job.number))
        return Recorder()

    needs = {11: [1], 21: [1, 11]}
    jobs = [Reporting(number) for number in (21, 11, 2, 1)]
    order = {"key": lambda job: job.number, "after": lambda job: needs.get(job.number, [])}
    for job, _ in run_jobs(jobs, 3, 1, started, **order):
        events.append(("end", job.number))
    assert [number for event, number in events if event == "start"][:2] == [2, 1]
    assert [pair for pair in events if pair[1] != 2] == [(e, n) for n in (1, 11, 21) for e in ("start", "end")]


def doubled(number: int) -> int:
    return 2 * number


@dataclass(frozen=True)
class Parallel:
    """A job that starts processes of its own, and ends them by a signal."""

    def run(self, watcher: Watcher) -> Iterator[list[int]]:
        with multiprocessing.get_context("fork").Pool(2) as pool:  # leaving the block sends SIGTERM
            results = pool.map(doubled, range(4))
        lingering = subprocess.Popen(["sleep", "60"])
        lingering.terminate()
        yield [*results, lingering.wait(timeout=30)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor sleep")
def test_a_plugin_may_start_processes_in_a_worker() -> None:
    ((_, result),) = run_jobs([Parallel()], 1, 1, lambda job: Recorder())
    assert result == [0, 2, 4, 6, -signal.SIGTERM]
