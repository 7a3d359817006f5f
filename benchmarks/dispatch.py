"""Times the loop that drives a run, apart from all work: a made-up executor says how jobs are, and runs none.

    python benchmarks/dispatch.py --jobs 1000 4000 16000

For each number of jobs, in milliseconds of the processor a job: its whole way with a thousand slots, 250 of which are
free at each look (it is submitted, looked at, and fails); its submission where all are submitted at once, as to a
queue; and a look at it while it waits there, and while it runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from tabulate import tabulate

from metabench.contracts import Condition, Executor, ExecutorConfig, Interrupted, Resources, RunOptions, Ticket
from metabench.executors.dispatch import Dispatch
from metabench.executors.job_line import JobLine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from counting import Counting, Silent

SLOTS, FREED, LOOKS = 1000, 250, 4


class Hollow(Executor):
    """An executor whose jobs wait, run or fail as it is told.

    Args:
        slots: number of jobs at once; None takes all.
        state: how the jobs are.
        failing: number of jobs that have failed at each look.
        looks: number of looks after which the run is interrupted; None never interrupts it.

    Attributes:
        looked: seconds of the processor at each look.
    """

    def __init__(self, slots: int | None, state: str, failing: int, looks: int | None = None) -> None:
        self.config = ExecutorConfig()
        self.looked: list[float] = []
        self._slots, self._failing, self._looks = slots, failing, looks
        self._going, self._failed = Condition(state), Condition("died", "it is made up")

    def slots(self, needs: Resources) -> int | None:
        """See `metabench.contracts.Executor`."""
        return self._slots

    def submit(self, tickets: Sequence[Ticket]) -> list[str]:
        """See `metabench.contracts.Executor`."""
        return [ticket.folder.name for ticket in tickets]

    def alive(self, handles: Sequence[str]) -> Mapping[str, Condition]:
        """See `metabench.contracts.Executor`."""
        self.looked.append(time.process_time())
        if len(self.looked) == self._looks:
            raise Interrupted
        failed = dict.fromkeys(handles[: self._failing], self._failed)
        return {**dict.fromkeys(handles, self._going), **failed}

    def cancel(self, handles: Sequence[str]) -> None:
        """See `metabench.contracts.Executor`."""

    def wait(self, seconds: float) -> None:
        """See `metabench.contracts.Executor`."""


def driven(jobs: int, executor: Hollow) -> float:
    """Run jobs to their end, or until the executor interrupts; return the seconds of the processor at the start."""
    queue = [Counting.of(f"job {number}") for number in range(jobs)]
    numbers = {cell.id: number for number, job in enumerate(queue) for cell in job.cells}
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(executor=executor, executor_name="hollow")
        dispatch = Dispatch(
            queue,
            Path(folder),
            options,
            lambda job: JobLine(job, Silent(), None, numbers),
            lambda job, reason: None,
            {},
        )
        begun = time.process_time()
        try:
            for _ in dispatch.events():
                pass
        except Interrupted:
            pass
    return begun


def whole_way(jobs: int) -> float:
    """Return the milliseconds of a job's way through the loop."""
    executor = Hollow(SLOTS, "running", FREED)
    begun = driven(jobs, executor)
    return 1000 * (executor.looked[-1] - begun) / jobs


def submission_and_look(jobs: int, state: str) -> tuple[float, float]:
    """Return the milliseconds of a job's submission with all others, and of a look at it in a state."""
    executor = Hollow(None, state, 0, LOOKS)
    begun = driven(jobs, executor)
    looks = statistics.median(after - before for before, after in pairwise(executor.looked))
    return 1000 * (executor.looked[0] - begun) / jobs, 1000 * looks / jobs


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000, 4000, 16000])
    given = parser.parse_args()
    table = []
    for jobs in given.jobs:
        submitted, waiting = submission_and_look(jobs, "waiting")
        _, running = submission_and_look(jobs, "running")
        table.append([jobs, whole_way(jobs), submitted, waiting, running])
    headers = ["jobs", "whole way ms", "submission ms", "look at one that waits ms", "that runs ms"]
    print(tabulate(table, headers, tablefmt="github", floatfmt=".3f"))


if __name__ == "__main__":
    main()
