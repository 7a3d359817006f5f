"""Run the jobs of a run; write each record as soon as its cell ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial

from metabench.contracts import Attempt, Cell, Job, Problem, RunOptions, Work
from metabench.executors.dispatch import Dispatch
from metabench.executors.events import CellDone, CellElsewhere, CellLost, Event, JobDone
from metabench.executors.job_line import JobLine, Reporter
from metabench.executors.shared_dispatch import SharedDispatch
from metabench.executors.sharing import Sharing
from metabench.executors.stages import Limited, Stages
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager


def run_work(
    work: Work,
    plugins: PluginManager,
    store: Store,
    reporter: Reporter,
    options: RunOptions,
    sharing: Sharing | None = None,
) -> list[Record]:
    """Run the cells without a kept record; return the records of all cells.

    Args:
        work: the cells, the kept records and the jobs.
        plugins: told of each finished cell.
        store: the output directory.
        reporter: shows the progress.
        options: see `RunOptions`.
        sharing: the jobs that this process has, of an output directory that several share.

    Raises:
        Interrupted: the user asked to stop; finished cells are kept, and the checkpoints of unfinished jobs.
        Detached: the jobs go on without this process.
        StoreError: the output directory cannot be written.
        MetabenchError: a worker cannot load the plugins or the data.
    """
    queue = work.jobs()
    recorder = _Recorder(work, plugins, store, reporter, sharing)
    for job in queue if options.fresh else []:
        store.drop_weights(job.key, checkpoint=True)
    recorder.begin()
    lines: dict[str, JobLine] = {}

    def started(job: Job) -> JobLine:
        lines[job.key] = JobLine(job, reporter, store if options.fresh else None, recorder.numbers)
        return lines[job.key]

    if options.in_process:
        source = in_this_process(queue, started)
    else:
        said = (queue, store.path, options, started, reporter.job_retried, work.expected)
        dispatch = Dispatch(*said) if sharing is None else SharedDispatch(sharing, *said)
        source = dispatch.events()
    with closing(source) as events:  # workers end before an error is shown
        for event in events:
            if isinstance(event, CellElsewhere):
                recorder.finish(event.record, elsewhere=True)
                continue
            line = lines[event.job.key]
            if isinstance(event, CellDone):
                recorder.note(event.record, partial(event.write, store), event.tested, event.traceback)
                line.finish(event.record.cell)
            elif isinstance(event, CellLost):
                recorder.fail(event.cell, event.problem)
                line.finish(event.cell.id)
            else:
                if event.traceback:
                    store.write_text(store.traceback_name(event.job.key), event.traceback)
                line.end(event.problem)
                if not options.keep_weights:
                    _drop_weights(queue, lines, store)
    return [recorder.records[cell.id] for cell in work.cells]


class _Recorder:
    """Makes the records of a run, and shows them.

    Attributes:
        records: the records of the run's cells so far.
        numbers: the numbers of the run's cells.
    """

    def __init__(
        self, work: Work, plugins: PluginManager, store: Store, reporter: Reporter, sharing: Sharing | None
    ) -> None:
        self.records = dict(work.kept)
        self.numbers = {cell.id: number for number, cell in enumerate(work.cells, 1)}
        self._work, self._plugins, self._store, self._reporter, self._sharing = work, plugins, store, reporter, sharing

    def begin(self) -> None:
        """Show the kept records; fail the cells that cannot run."""
        for cell in self._work.cells:
            if cell.id in self._work.kept:
                self._reporter.cell_done(self._work.kept[cell.id], kept=True)
            elif cell.problem:
                self._reporter.cell_started(cell, self.numbers[cell.id], len(self.numbers))
                self.fail(cell, cell.problem)

    def note(self, record: Record, write: Callable[[Record], None], tested: bool, traceback: str = "") -> None:
        """Write the record of a result, unless another process has done so."""
        if self._sharing is None:
            record, elsewhere = self._written(record, write, tested, traceback), False
        else:
            with self._sharing.members.writing():
                found = self._sharing.recorded(record)
                record, elsewhere = found or self._written(record, write, tested, traceback), found is not None
                self._sharing.tell(record.cell)
        if not elsewhere:
            self._plugins.cell_finished(self._store.path, record.model_dump())
        self.finish(record, elsewhere)

    def fail(self, cell: Cell, problem: str) -> None:
        """Write the record of a cell without a result."""
        # A cell that could not be tried, perhaps this time only, leaves its earlier results alone.
        keep = bool(cell.problem) and self._store.has_results(cell.id)
        record = self._work.failed(cell, problem)
        self.note(record, lambda record: None if keep else self._store.write(record), tested=False)

    def finish(self, record: Record, elsewhere: bool) -> None:
        """Show the record of a cell, whoever has made it."""
        if record.cell in self.numbers and record.cell not in self.records:
            self.records[record.cell] = record
            self._reporter.cell_done(record, kept=elsewhere)

    def _written(self, record: Record, write: Callable[[Record], None], tested: bool, traceback: str) -> Record:
        record = self._store.with_look(record) if tested else record
        if traceback:
            self._store.write_text(self._store.traceback_name(record.cell), traceback)
        write(record)
        self._store.keep_look(record)  # after it: a process that is killed in between has not counted a look twice
        return record


def _drop_weights(queue: Sequence[Job], lines: Mapping[str, JobLine], store: Store) -> None:
    """Delete the weights of ended jobs that no other job waits for."""
    unfinished = [job for job in queue if job.key not in lines or not lines[job.key].ended]
    needed = {key for job in unfinished for key in (job.key, *job.after)}
    for job in queue:
        if job.key not in needed:
            store.drop_weights(job.key)


def in_this_process(queue: Sequence[Job], started: Callable[[Job], JobLine]) -> Generator[Event, None, None]:
    """Run jobs one after the other in this process; yield what becomes of them."""
    for job in queue:
        problem = Problem("")
        stages = Stages(job.needs.limits)
        for result in job.run(Limited(started(job), stages)):
            if isinstance(result, Attempt):
                yield _cell_done(job, result)
                stages.begin("test")
            elif isinstance(result, Problem):
                problem = result
        yield JobDone(job, problem.problem, problem.traceback)


def _cell_done(job: Job, attempt: Attempt) -> CellDone:
    def write(store: Store, record: Record) -> None:
        store.write(record, attempt.episodes, attempt.picture)

    return CellDone(job, attempt.record, attempt.episodes is not None, attempt.traceback, write)
