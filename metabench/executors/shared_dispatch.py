"""The driver's loop in an output directory that several processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from metabench.contracts import Condition, Job, RunOptions
from metabench.executors.dispatch import Dispatch
from metabench.executors.events import CellElsewhere, Event
from metabench.executors.job_line import JobLine
from metabench.executors.running import Running
from metabench.executors.sharing import Sharing


class SharedDispatch(Dispatch):
    """Runs the jobs that no other process has, and takes over those of the dead, until all are finished.

    Args:
        sharing: which jobs this process has.
        jobs: further arguments as of `Dispatch`.
    """

    def __init__(
        self,
        sharing: Sharing,
        jobs: Sequence[Job],
        output: Path,
        options: RunOptions,
        started: Callable[[Job], JobLine],
        retried: Callable[[Job, str], None],
        expected: Mapping[str, float],
    ) -> None:
        super().__init__(jobs, output, options, started, retried, expected)
        self._sharing = sharing

    @property
    def _place(self) -> Path:
        return self._sharing.members.own.path

    @property
    def _awaits_news(self) -> bool:
        return self._sharing.has_news

    def _is_asked_to_stop(self) -> bool:
        return self._sharing.console.interrupted or super()._is_asked_to_stop()  # it may wait without a job

    def _adopt(self) -> None:
        """Adopt nothing: a job of another process is taken when that is lost."""

    def _done_elsewhere(self) -> Iterator[Event]:
        if not self._sharing.is_due:
            return
        for record in self._sharing.look():
            yield CellElsewhere(record)
        remaining = self._sharing.remaining(list(self._queue.values()))
        self._queue = {job.key: job for job in remaining}
        self._sharing.waits_for([] if self._running or self._again else remaining)

    def _begun(self, job: Job) -> Running | None:
        mine = self._sharing.take(job)
        if mine is None:
            return None
        running = super()._begun(mine)
        if running is not None:
            running.go_on()
            self._sharing.mend(running.folder.results())
        return running

    def _looked(self, running: Running, condition: Condition | None) -> Iterator[Event]:
        if self._sharing.has(running.job.key):
            yield from super()._looked(running, condition)
            return
        if running.handle is not None:  # another process has taken this one for dead, while it was stopped
            self._executor.cancel([running.handle])
        del self._running[running.job.key]
        self._queue[running.job.key] = running.job

    def _conclude(self) -> None:
        """Leave the folder of the jobs to the others."""

    def _closed(self, running: Running, problem: str) -> None:
        super()._closed(running, problem)
        self._sharing.end(running.job, problem)

    def _left(self, running: Running) -> None:
        super()._left(running)
        self._sharing.give_back(running.job.key)
