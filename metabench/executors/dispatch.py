"""The driver's loop: submit the jobs of a run to an executor, watch them, try again those whose machine died.

The rule: what a machine does to a job (its process was killed, its node was lost or preempted, its heartbeat stopped)
is tried again, `RunOptions.retries` times. What a job does to itself (an exception, an exit code, any signal but
SIGKILL) would come again: its cells fail. A limit of time fails the cells of its stage, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

from metabench import errors
from metabench.contracts import Condition, Job, Resources, RunOptions, Ticket
from metabench.engine.progress import Interrupted
from metabench.errors import MetabenchError
from metabench.executors.choosing import executor_of
from metabench.executors.events import CellLost, Detached, Event, JobDone
from metabench.executors.going_run import GoingRun, end_run
from metabench.executors.job_files import Ended
from metabench.executors.job_folder import JOBS, JobFolder
from metabench.executors.job_line import JobLine
from metabench.executors.running import Running
from metabench.machine.device import share_of_threads

#: Seconds between two looks at the jobs.
_POLL_SECONDS = 0.1
#: Seconds that workers have to end when the run is stopped, before the executor ends them.
_STOP_SECONDS = 8.0


class Dispatch:
    """Runs jobs on an executor.

    Args:
        jobs: the jobs, in starting order.
        output: the output directory.
        options: executor and retries.
        started: called when a job starts; returns what shows it.
        retried: called with a job that is tried again, and the reason.
        expected: expected seconds of cells, for who asks how the run is.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        output: Path,
        options: RunOptions,
        started: Callable[[Job], JobLine],
        retried: Callable[[Job, str], None],
        expected: Mapping[str, float],
    ) -> None:
        self._executor, self._options, self._output = executor_of(options), options, output
        self._started, self._retried = started, retried
        self._queue = {job.key: job for job in jobs}
        self._running: dict[str, Running] = {}
        self._again: dict[str, Running] = {}
        self._stop_at: float | None = None
        self._failure: MetabenchError | None = None
        slots = self._executor.slots(jobs[0].needs) if jobs else 1
        self._run = GoingRun.of_this_process(
            executor=options.executor_name,
            options=self._executor.config.model_dump(mode="json"),
            slots=slots,
            outlives_driver=self._executor.outlives_driver,
            cells=[cell.id for job in jobs for cell in job.cells],
            expected=dict(expected),
        )
        self._threads = self._executor.config.threads or share_of_threads(min(slots or 1, max(1, len(jobs))))

    def events(self) -> Generator[Event, None, None]:
        """Yield what becomes of the jobs and their cells, as it comes.

        Raises:
            Interrupted: a line asked to stop; workers that end with this process have ended.
            Detached: the options ask for it, and all jobs that can be are submitted.
            MetabenchError: a worker raised it, or jobs cannot be submitted.
        """
        if not self._queue:
            return
        try:
            self._announce()
            self._adopt()
            while self._running or (not self._is_stopping and (self._again or self._queue or self._awaits_news)):
                yield from self._done_elsewhere()
                if not self._is_stopping:
                    self._submit()
                if self._options.detach:
                    raise Detached(len(self._running), len(self._queue))
                self._executor.wait(_POLL_SECONDS)
                handles = [one.handle for one in self._running.values() if one.handle is not None]
                conditions = self._executor.alive(handles)
                for running in list(self._running.values()):
                    yield from self._looked(running, conditions.get(running.handle or ""))
                if not self._is_stopping and self._is_asked_to_stop():
                    self._stop()
                if self._stop_at is not None and (self._executor.outlives_driver or time.monotonic() > self._stop_at):
                    break
        finally:
            self._executor.close()
            self._conclude()
        if self._failure is not None:
            raise self._failure
        if self._queue or self._running or self._again:
            raise Interrupted

    # ------------------------------------------------------------------------------------------- start and stop

    @property
    def _is_stopping(self) -> bool:
        return self._stop_at is not None

    def _is_asked_to_stop(self) -> bool:
        return any(one.line.should_stop() for one in self._running.values())

    @property
    def _awaits_news(self) -> bool:
        """Return whether cells that other processes have finished are still to be told."""
        return False

    def _done_elsewhere(self) -> Iterator[Event]:
        """Yield the cells that other processes have finished; leave their jobs out."""
        yield from ()

    def _conclude(self) -> None:
        """Tidy up when this process has ended its part of the run."""
        end_run(self._output)

    def _closed(self, running: Running, problem: str) -> None:
        """Note that a job has ended: why it failed, empty if it did not."""
        running.folder.remove()

    def _left(self, running: Running) -> None:
        """Note that a job is left to a later run."""
        running.folder.remove()

    @property
    def _place(self) -> Path:
        """Return the folder in which others look for the run."""
        return self._output / JOBS

    def _announce(self) -> None:
        """Let others know of the run.

        Raises:
            StoreError: the directory cannot be written.
        """
        try:
            self._run.write(self._place)
        except OSError as error:
            raise errors.StoreError(f"cannot write to {self._output}: {error.strerror or error}") from error

    def _adopt(self) -> None:
        """Take up jobs that an earlier driver has submitted, and that still run; never submit them twice."""
        for job in list(self._queue.values()):
            folder = JobFolder.of(self._output, job.key)
            submitted, handle, claim = folder.submitted(), folder.handle(), folder.claim()
            if submitted is None:
                continue
            if not self._executor.outlives_driver or submitted.executor != self._options.executor_name:
                handle = None
            if handle is not None and self._options.fresh:
                self._executor.cancel([handle])
                handle = claim = None
            if folder.take_up():
                handle = None
            if handle is None and (claim is None or claim.is_dead):
                folder.remove()
                continue
            del self._queue[job.key]
            self._running[job.key] = Running(job, folder, self._started(job))
            self._running[job.key].adopt(submitted, handle, claim)

    def _submit(self) -> None:
        """Submit the jobs that may start now, in order."""
        starting = list(self._startable())
        if not starting:
            return
        handles = self._executor.submit([self._ticket(running) for running in starting])
        for running, handle in zip(starting, handles, strict=True):
            running.handle = handle
            running.folder.write_handle(handle)
            self._running[running.job.key] = running

    def _startable(self) -> Iterator[Running]:
        """Yield the jobs that may start now, in order; they leave their queue."""
        unfinished = {*self._running, *self._again, *self._queue}
        taken = len(self._running)
        for job in [*(running.job for running in self._again.values()), *self._queue.values()]:
            if not unfinished.isdisjoint(job.after):
                continue
            slots = self._executor.slots(job.needs)
            if slots is not None and taken >= slots:
                return
            running = self._again.pop(job.key, None) or self._begun(job)
            if running is not None:
                taken += 1
                yield running

    def _begun(self, job: Job) -> Running | None:
        """Return a job of the queue as it starts; None if another process has it."""
        del self._queue[job.key]
        return Running(job, JobFolder.of(self._output, job.key), self._started(job))

    def _ticket(self, running: Running) -> Ticket:
        """Write the folder of a job; return its ticket.

        Raises:
            StoreError: it cannot be written.
        """
        config, wanted = self._executor.config, running.job.needs
        needs = Resources(wanted.gpus, self._threads, config.memory_mb, wanted.limits.tightened(config.limits))
        try:
            running.write(self._options.executor_name, self._executor.outlives_driver, needs)
        except OSError as error:
            raise errors.StoreError(f"cannot write to {running.folder.path}: {error.strerror or error}") from error
        return Ticket(running.folder.path, running.attempt, running.job.title, needs)

    def _stop(self) -> None:
        self._stop_at = time.monotonic() + _STOP_SECONDS
        if not self._executor.outlives_driver:
            self._executor.cancel([one.handle for one in self._running.values() if one.handle is not None])

    # ------------------------------------------------------------------------------------------- look

    def _looked(self, running: Running, condition: Condition | None) -> Iterator[Event]:
        """Look at a job; yield its news.

        The condition was asked before: what a worker has written before it ended is seen.
        """
        if condition is not None and condition.state == "waiting":
            return
        yield from running.news()
        ended = running.folder.ended(running.attempt)
        if ended is not None and not self._is_final(ended, running, condition):
            ended = None
        gone = condition is not None and condition.state in ("ended", "died")
        if ended is None and not gone:
            running.runs()
            if condition is None:
                running.observer.look()
            if running.stays_too_long() and running.handle is not None:
                running.overdue = True
                self._executor.cancel([running.handle])
            if running.handle is None and running.folder.claim() is None:
                ended = Ended(how="interrupted")  # a worker of another driver, which did not say how it ended
            elif condition is not None or not running.observer.is_lost:
                return
        elif not self._has_ended(ended, condition) and running.is_ending():
            return
        yield from running.news()
        del self._running[running.job.key]
        yield from self._ended(running, ended, condition)

    def _is_final(self, ended: Ended, running: Running, condition: Condition | None) -> bool:
        """Return whether a worker's last word is that of its attempt."""
        if ended.how == "interrupted":  # a queue that preempts it starts it again
            return condition is None or condition.state != "running"
        return ended.how != "taken" or running.handle is not None  # else the worker that has it is already followed

    def _has_ended(self, ended: Ended | None, condition: Condition | None) -> bool:
        """Return whether both signs of a job's end are there: its slot is free, and its last files are seen."""
        if ended is None:
            return not self._executor.outlives_driver  # else a shared folder may show them late
        return condition is None or condition.state != "running"

    # ------------------------------------------------------------------------------------------- end

    def _ended(self, running: Running, ended: Ended | None, condition: Condition | None) -> Iterator[Event]:
        """Decide what becomes of a job whose worker has ended."""
        ended = self._how(running, ended, condition)
        if ended is None:
            yield from self._gone(running, condition)
        elif ended.how == "done" and running.was_given_all:
            yield from self._lost(running, "its job gave it no result", of_job="")
        elif ended.how == "problem":
            running.folder.remove()
            yield JobDone(running.job, ended.message, ended.traceback)
        elif ended.how == "died":
            yield from self._lost(running, f"its process ended with {ended.message}")
        elif ended.how == "limit":
            yield from self._over(running, ended)
        elif ended.how == "error":
            kind = getattr(errors, ended.kind, MetabenchError)
            self._failure = self._failure or kind(ended.message)
            self._leave(running)
            self._stop()
        elif ended.how == "taken":
            running.follow()
            self._running[running.job.key] = running
        elif self._is_stopping:
            self._leave(running)
        elif ended.how == "done" or running.handle is None:  # of fewer cells; or ended with its driver
            self._try_again(running)
        else:
            yield from self._retry(running, "it was asked to stop, and not by this run")

    def _how(self, running: Running, ended: Ended | None, condition: Condition | None) -> Ended | None:
        """Return how a job has ended, which its worker cannot know if others have ended it; None if it has not said."""
        if ended is not None and ended.how != "interrupted":
            return ended
        if running.overdue:
            stage, cell = running.stage
            return Ended(how="limit", stage=stage, cell=cell, message=running.limit_problem)
        if running.folder.is_cancelled:
            self._stop()
        if self._is_stopping:
            return Ended(how="interrupted")  # the signal that stopped the run may have killed the worker
        return None if condition is not None and condition.state == "died" else ended

    def _gone(self, running: Running, condition: Condition | None) -> Iterator[Event]:
        """Decide what becomes of a job whose worker did not say how it ended."""
        if condition is None:
            if running.handle is not None:
                self._executor.cancel([running.handle])
            yield from self._retry(running, "its worker was lost: no heartbeat")
        elif condition.by_machine:
            yield from self._retry(running, condition.reason)
        else:
            reason = condition.reason or "its process ended without a word (exit code 0)"
            yield from self._lost(running, reason)

    def _over(self, running: Running, ended: Ended) -> Iterator[Event]:
        """Fail the cells whose limit is over; go on with the others."""
        for cell in [cell for cell in running.left if ended.stage == "training" or cell.id == ended.cell]:
            running.lose(cell)
            yield CellLost(running.job, cell, ended.message)
        if running.left:
            self._try_again(running)
        else:
            yield from self._lost(running, ended.message)

    def _lost(self, running: Running, reason: str, of_job: str | None = None) -> Iterator[Event]:
        """End a job; its cells without a result fail."""
        for cell in running.left:
            yield CellLost(running.job, cell, reason)
        problem = reason if of_job is None else of_job
        self._closed(running, problem)
        yield JobDone(running.job, problem)

    def _retry(self, running: Running, reason: str) -> Iterator[Event]:
        """Try a job again whose machine has died, unless that has been so too often."""
        running.deaths += 1
        if running.deaths > self._options.retries:
            times = f" ({running.deaths} times)" if running.deaths > 1 else ""
            yield from self._lost(running, f"{reason}{times}")
        else:
            self._retried(running.job, reason)
            self._try_again(running)

    def _try_again(self, running: Running) -> None:
        running.renew()
        self._again[running.job.key] = running

    def _leave(self, running: Running) -> None:
        """Leave a job to a later run, which goes on from its checkpoint."""
        self._left(running)
        self._again[running.job.key] = running
