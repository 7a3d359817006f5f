from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field

import pytest
import torch

from metabench.engine.progress import Interrupted, Watcher
from metabench.errors import StoreError
from metabench.executors.processes import Died, run_jobs


@dataclass
class Seen:
    """A watcher that asks to stop once `stop_at` is done."""

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
class Sum:
    """Says what it is and how it computes."""

    number: int

    def run(self, watcher: Watcher) -> tuple[int, int, int]:
        watcher.phase("train", 10, self.number)
        watcher.advance(7, "a note")
        return self.number, os.getpid(), torch.get_num_threads()


@dataclass(frozen=True)
class Killed:
    """Is killed on the way."""

    def run(self, watcher: Watcher) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class FullDisk:
    """Cannot write."""

    def run(self, watcher: Watcher) -> None:
        raise StoreError("cannot write out: no space left on device")


@dataclass(frozen=True)
class Endless:
    """Goes on until it is asked to stop; Ctrl-C in its own process does not end it."""

    def run(self, watcher: Watcher) -> None:
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
    """Is asked to stop when there is nothing left to stop."""

    def run(self, watcher: Watcher) -> str:
        watcher.phase("train", 10**9)
        begun, step = time.monotonic(), 0
        while not watcher.should_stop() and time.monotonic() - begun < 60:
            step += 1
            watcher.advance(step)
        return "done"


def test_jobs_run_in_processes_of_their_own_and_their_progress_is_seen() -> None:
    watchers: dict[int, Seen] = {}

    def started(job: Sum) -> Seen:
        watchers[job.number] = Seen()
        return watchers[job.number]

    results = {job.number: came for job, came in run_jobs([Sum(i) for i in range(3)], 2, 1, started)}
    assert {number: came[0] for number, came in results.items()} == {0: 0, 1: 1, 2: 2}
    assert len({came[1] for came in results.values()} | {os.getpid()}) == 4
    assert {came[2] for came in results.values()} == {1}
    assert {number: seen.phases for number, seen in watchers.items()} == {i: [("train", 10, i)] for i in range(3)}
    assert {seen.done for seen in watchers.values()} == {7}
    assert {tuple(seen.notes) for seen in watchers.values()} == {("a note",)}


def test_a_process_that_is_killed_says_by_what_and_the_others_go_on() -> None:
    jobs: list[Sum | Killed] = [Killed(), Sum(1)]
    results = dict(run_jobs(jobs, 1, 1, lambda job: Seen()))
    assert results[jobs[0]] == Died(-signal.SIGKILL)
    assert results[jobs[1]][0] == 1


def test_an_error_that_ends_a_run_stops_the_other_processes() -> None:
    with pytest.raises(StoreError, match="no space left"):
        list(run_jobs([Endless(), FullDisk()], 2, 1, lambda job: Seen()))


def test_a_watcher_that_asks_to_stop_stops_all_and_nothing_more_is_started() -> None:
    begun = []

    def started(job: Endless) -> Seen:
        begun.append(job)
        return Seen(stop_at=1 if len(begun) == 2 else None)

    with pytest.raises(Interrupted):
        list(run_jobs([Endless() for _ in range(3)], 2, 1, started))
    assert len(begun) == 2


def test_a_job_that_is_done_before_it_can_stop_is_kept_and_the_rest_is_not_forgotten() -> None:
    results = run_jobs([AlmostDone(), AlmostDone()], 1, 1, lambda job: Seen(stop_at=1))
    assert next(results)[1] == "done"
    with pytest.raises(Interrupted):
        next(results)


def test_of_a_chain_one_job_runs_at_a_time() -> None:
    seen: list[tuple[str, int]] = []

    def started(job: Sum) -> Seen:
        seen.append(("begins", job.number))
        return Seen()

    for job, _ in run_jobs([Sum(1), Sum(11), Sum(2), Sum(21)], 3, 1, started, chain=lambda job: job.number % 10 == 1):
        seen.append(("ends", job.number))
    assert [number for event, number in seen if event == "begins"][:2] == [1, 2], "the next one that may"
    assert [pair for pair in seen if pair[1] != 2] == [(e, n) for n in (1, 11, 21) for e in ("begins", "ends")]
