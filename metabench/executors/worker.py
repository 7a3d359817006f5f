"""Run one job in a worker, by the files of its folder: ``python -m metabench.executors.worker FOLDER ATTEMPT``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from metabench.contracts import Attempt, Job, Limits, Problem
from metabench.engine.progress import Interrupted
from metabench.errors import MetabenchError, in_one_line
from metabench.executors.heartbeat import Heartbeat, Observer
from metabench.executors.job_files import Claim, Ended, Progress
from metabench.executors.job_folder import JobFolder, left
from metabench.executors.stages import Stage, Stages
from metabench.machine.stops import watch_stops

#: Seconds between two writings of the progress.
_PROGRESS_SECONDS = 0.25
#: Seconds between two looks at the heartbeat of another worker.
_LOOK_SECONDS = 0.2
#: Exit code of a worker that could not write how it ended (EX_IOERR of sysexits.h).
CANNOT_WRITE = 74


def work(folder: JobFolder, attempt: int, asked_to_stop: Callable[[], bool]) -> int:
    """Run the job of a folder, and write its results and how it ended; return the exit code.

    Args:
        folder: the folder of the job.
        attempt: number of the attempt.
        asked_to_stop: returns whether the job should write a checkpoint and end.
    """
    try:
        ended = _run(folder, attempt, asked_to_stop)
    except MetabenchError as error:
        ended = Ended(how="error", message=str(error), kind=type(error).__name__)
    except BaseException as error:  # e.g. a KeyboardInterrupt of a plugin
        ended = Ended(how="died", message=in_one_line(error))
    try:
        folder.write_end(attempt, ended)
    except OSError as error:
        print(f"metabench: cannot write to {folder.path}: {error.strerror or error}", file=sys.stderr)
        return CANNOT_WRITE
    return 0


def _run(folder: JobFolder, attempt: int, asked_to_stop: Callable[[], bool]) -> Ended:
    """Run the job; return how it ended."""
    claim = Claim.of_this_process(attempt)
    submitted = folder.submitted()
    if submitted is None or not _taken(folder, claim, asked_to_stop):
        return Ended(how="taken")
    watcher = FileWatcher(folder, attempt, submitted.limits, asked_to_stop)
    heartbeat = Heartbeat(folder, claim, watcher.beat, watcher.disown)
    try:
        job = folder.job()
        finished = folder.results()
        if finished and job.cells:
            job = job.with_cells(left(job, finished))
            if not job.cells:
                return Ended(how="done")
        return _results(folder, job, attempt, watcher)
    except Interrupted:
        return Ended(how="taken" if watcher.disowned else "interrupted")
    finally:
        heartbeat.end()
        folder.release(claim)


def _results(folder: JobFolder, job: Job, attempt: int, watcher: FileWatcher) -> Ended:
    """Write each result of a job as it comes; return how it ended."""
    cells = list(job.cells)
    watcher.begin(cells[0].id if cells else "")
    problem: Problem | None = None
    for number, result in enumerate(job.run(watcher), 1):
        if isinstance(result, Attempt):
            folder.write_result(result, attempt)
            if number < len(cells):
                watcher.begin(cells[number].id, "test")
        elif isinstance(result, Problem):
            problem = result
    if problem is not None:
        return Ended(how="problem", message=problem.problem, traceback=problem.traceback)
    return Ended(how="done")


def _taken(folder: JobFolder, claim: Claim, asked_to_stop: Callable[[], bool]) -> bool:
    """Claim a job; return False if another worker has it.

    The claim of a worker that is dead or lost is replaced: it may be the earlier life of a job that was queued again.
    """
    observer = Observer(folder)
    observer.look()
    while not folder.take(claim):
        other = folder.claim()
        beats = observer.beats
        observer.look()
        if observer.is_lost and other is not None:
            folder.release(other)
        elif observer.beats > beats or asked_to_stop():
            return False
        else:
            time.sleep(_LOOK_SECONDS)
    return True


class FileWatcher:
    """The watcher of a job in its worker: writes the progress, and keeps the limits of time.

    Args:
        folder: the folder of the job.
        attempt: number of the attempt.
        limits: most time of the training and of each test.
        asked_to_stop: returns whether the job should stop.

    Attributes:
        disowned: whether another worker has taken the job.
    """

    def __init__(self, folder: JobFolder, attempt: int, limits: Limits, asked_to_stop: Callable[[], bool]) -> None:
        self.disowned = False
        self._folder, self._attempt, self._asked = folder, attempt, asked_to_stop
        self._stages = Stages(limits)
        self._progress = Progress()
        self._written, self._dirty = 0.0, False
        self._lock = threading.Lock()

    def begin(self, cell: str, stage: Stage = "training") -> None:
        """Begin with a cell."""
        self._stages.begin(stage)
        self._progress = self._progress.model_copy(update={"cell": cell, "note": ""})
        self._write()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._stages.phase(name)
        news = {"phase": name, "total": total, "first": done, "done": done, "note": ""}
        self._progress = self._progress.model_copy(update={**news, "phases": self._progress.phases + 1})
        self._write_sometimes()

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`.

        Raises:
            CellFailed: a limit of time is over.
        """
        self._progress = self._progress.model_copy(update={"done": done, "note": note or self._progress.note})
        self._write_sometimes()
        self._stages.check()

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return self.disowned or self._asked()

    def disown(self) -> None:
        """Note that another worker has taken the job."""
        self.disowned = True

    def beat(self) -> None:
        """Write news that came too soon to be written; end a worker that does not keep a limit by itself."""
        if self._dirty:
            self._write()
        if self._stages.is_overdue():
            self._end_overdue()

    def _end_overdue(self) -> None:
        """End the process from another thread: the job does not come back from where it is."""
        stage, cell = self._stages.stage, self._progress.cell
        try:
            ended = Ended(how="limit", message=self._stages.problem, stage=stage, cell=cell)
            self._folder.write_end(self._attempt, ended)
        finally:
            os._exit(0)

    def _write_sometimes(self) -> None:
        self._dirty = True
        if time.monotonic() - self._written > _PROGRESS_SECONDS:
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._dirty, self._written = False, time.monotonic()
            news = {"stage": self._stages.stage, "seconds": self._stages.seconds}
            try:
                self._folder.write_progress(self._progress.model_copy(update=news))
            except OSError:  # a full disk fails the job's own files, with a message
                self._dirty = True


def main(arguments: Sequence[str]) -> int:
    """Run the job of a folder in this process; return the exit code."""
    watch_stops()  # before torch starts threads, which would take the signal
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2"):  # the last: of clusters, before they preempt
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), ask)
    folder, attempt = JobFolder(Path(arguments[0])), int(arguments[1])
    folder.begin(attempt)
    submitted = folder.submitted()
    if submitted is not None:
        import torch

        torch.set_num_threads(submitted.threads)
    return work(folder, attempt, lambda: bool(asked))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # threads and exit handlers of plugins cannot hold it
