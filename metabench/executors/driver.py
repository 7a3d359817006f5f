"""Run the jobs of a run; write each record as soon as its cell ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial

from metabench.contracts import Attempt, Cell, Job, Problem, RunOptions, Work
from metabench.executors.dispatch import Dispatch
from metabench.executors.events import CellDone, CellLost, Event, JobDone
from metabench.executors.job_line import JobLine, Reporter
from metabench.executors.stages import Limited, Stages
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager


def run_work(work: Work, plugins: PluginManager, store: Store, reporter: Reporter, options: RunOptions) -> list[Record]:
    """Run the cells without a kept record; return the records of all cells.

    Args:
        work: the cells, the kept records and the jobs.
        plugins: told of each finished cell.
        store: the output directory.
        reporter: shows the progress.
        options: see `RunOptions`.

    Raises:
        Interrupted: the user asked to stop; finished cells are kept, and the checkpoints of unfinished jobs.
        Detached: the jobs go on without this process.
        StoreError: the output directory cannot be written.
        MetabenchError: a worker cannot load the plugins or the data.
    """
    cells, records = work.cells, dict(work.kept)
    queue = work.jobs()

    def note(record: Record, write: Callable[[Record], None], tested: bool, traceback: str = "") -> None:
        record = store.count_look(record) if tested else record
        if traceback:
            store.write_text(store.traceback_name(record.cell), traceback)
        write(record)
        plugins.cell_finished(store.path, record.model_dump())
        reporter.cell_done(record, kept=False)
        records[record.cell] = record

    def fail(cell: Cell, problem: str) -> None:
        # A cell that could not be tried, perhaps this time only, leaves its earlier results alone.
        keep = bool(cell.problem) and store.has_results(cell.id)
        note(work.failed(cell, problem), lambda record: None if keep else store.write(record), tested=False)

    numbers = {cell.id: number for number, cell in enumerate(cells, 1)}
    for job in queue if options.fresh else []:
        store.drop_weights(job.key, checkpoint=True)
    for cell in cells:
        if cell.id in work.kept:
            reporter.cell_done(work.kept[cell.id], kept=True)
        elif cell.problem:
            reporter.cell_started(cell, numbers[cell.id], len(cells))
            fail(cell, cell.problem)
    lines: dict[str, JobLine] = {}

    def started(job: Job) -> JobLine:
        lines[job.key] = JobLine(job, reporter, store if options.fresh else None, numbers)
        return lines[job.key]

    if options.in_process:
        source = in_this_process(queue, started)
    else:
        source = Dispatch(queue, store.path, options, started, reporter.job_retried, work.expected).events()
    with closing(source) as events:  # workers end before an error is shown
        for event in events:
            line = lines[event.job.key]
            if isinstance(event, CellDone):
                note(event.record, partial(event.write, store), event.tested, event.traceback)
                line.finish(event.record.cell)
            elif isinstance(event, CellLost):
                fail(event.cell, event.problem)
                line.finish(event.cell.id)
            else:
                if event.traceback:
                    store.write_text(store.traceback_name(event.job.key), event.traceback)
                line.end(event.problem)
                if not options.keep_weights:
                    _drop_weights(queue, lines, store)
    return [records[cell.id] for cell in cells]


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
