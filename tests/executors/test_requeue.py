"""Jobs of a queue that preempts them, starts them again, or gives them to two workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from metabench.contracts import Condition, Executor, ExecutorConfig, Resources, Ticket
from metabench.executors.job_folder import Claim, Ended, JobFolder
from metabench.executors.worker import work
from scripted import Scripted, Watching, cell, run, tries

#: What happens to the folder of a job between two looks, and how the queue says that it is.
Step = Callable[[JobFolder, int], Condition]


class Queue(Executor):
    """A queue of one job, to which things happen at each look."""

    outlives_driver = True

    def __init__(self, *steps: Step) -> None:
        self.config = ExecutorConfig()
        self.steps = list(steps)
        self.tickets: list[Ticket] = []

    def slots(self, needs: Resources) -> None:
        return

    def submit(self, tickets: Sequence[Ticket]) -> list[str]:
        self.tickets += tickets
        return [f'"{ticket.attempt}"' for ticket in tickets]

    def alive(self, handles: Sequence[str]) -> dict[str, Condition]:
        if not handles:  # another worker is followed
            return {}
        ticket = self.tickets[-1]
        return {handles[0]: self.steps.pop(0)(JobFolder(ticket.folder), ticket.attempt)}

    def cancel(self, handles: Sequence[str]) -> None: ...

    def wait(self, seconds: float) -> None: ...


def interrupted(condition: Condition) -> Step:
    def step(folder: JobFolder, attempt: int) -> Condition:
        folder.write_end(attempt, Ended(how="interrupted"))
        return condition

    return step


def waits(folder: JobFolder, attempt: int) -> Condition:
    return Condition("waiting")


def runs(folder: JobFolder, attempt: int) -> Condition:
    return Condition("running")


def ends(folder: JobFolder, attempt: int) -> Condition:
    assert work(folder, attempt, lambda: False) == 0
    return Condition("ended")


@pytest.fixture
def job(tmp_path: Path) -> Scripted:
    return Scripted("only", tmp_path / "log", [cell(1)])


def test_a_job_that_is_preempted_and_queued_again_is_not_submitted_again(job: Scripted, tmp_path: Path) -> None:
    queue, watching = Queue(interrupted(Condition("running")), waits, runs, ends), Watching()
    (said,) = run([job], tmp_path / "out", watching, executor=queue)
    assert said.startswith("GPU")  # the job's own words
    assert (len(queue.tickets), watching.retried, tries(job.log)) == (1, [], {1: 1})


def test_a_job_that_is_not_queued_again_fails_with_the_reason_of_the_queue(job: Scripted, tmp_path: Path) -> None:
    watching = Watching()
    queue = Queue(runs, interrupted(Condition("died", "somebody has cancelled it")))
    assert run([job], tmp_path / "out", watching, executor=queue) == ["somebody has cancelled it"]
    assert watching.retried == []


def test_a_job_of_two_workers_is_tried_again_when_the_one_that_has_it_dies(job: Scripted, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    def taken(folder: JobFolder, attempt: int) -> Condition:
        dead = Claim.of_this_process(attempt).model_copy(update={"pid": process.pid})
        assert folder.take(dead)
        folder.write_end(attempt, Ended(how="taken"))  # said by a second worker of the same attempt
        return Condition("ended")

    queue, watching = Queue(runs, taken, ends), Watching()
    (said,) = run([job], tmp_path / "out", watching, executor=queue)
    assert said.startswith("GPU")
    assert watching.retried == ["its worker was lost: no heartbeat"]
    assert [ticket.attempt for ticket in queue.tickets] == [1, 2]
