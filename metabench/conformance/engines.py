"""Check an engine against the contract of `metabench.contracts.Engine`, by a small suite of it.

`metabench.testing.EngineChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metabench.conformance.checks import NotConforming
from metabench.contracts import Attempt, Cell, Console, Job, Plan, Request, RunOptions, Watcher, Work, engine_of
from metabench.engine.progress import Interrupted
from metabench.errors import StoreError
from metabench.planning.suite_file import read_suite
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager

#: Labels that every cell has.
LABELS = ("algorithm", "dataset", "backbone", "seed")
#: Plans the suite of the arguments with the search path of this process, and says whether that imported torch.
_PLANNING = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pathlib import Path
from metabench.contracts import Request, engine_of
from metabench.planning.suite_file import read_suite
from metabench.registry.manager import PluginManager
if __name__ == "__main__":
    plugins, file = PluginManager.from_environment(), read_suite(Path(sys.argv[2]))
    engine_of(file, plugins).plan(file, Request(json.loads(sys.argv[3]), device="cpu"))
    print("torch" in sys.modules)
"""


@dataclass(frozen=True)
class Subject:
    """The engine to check.

    Attributes:
        suite: file of a suite that names the engine and runs in seconds.
        profile: profile of the suite; None takes its default.
        plugins: the plugin manager that provides the engine.
    """

    suite: Path
    profile: str | None = None
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)

    def plan(self, seeds: Sequence[int] | None = None) -> Plan:
        """Return the plan of the suite."""
        file = read_suite(self.suite)
        request = Request(self.profile, seeds, device="cpu", options=RunOptions(in_process=True))
        return engine_of(file, self.plugins).plan(file, request)

    @contextmanager
    def work(self) -> Iterator[tuple[Plan, Store, Work]]:
        """Yield the plan, an empty output directory and the work of all cells."""
        plan = self.plan()
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "out")
            yield plan, store, _prepared(plan, store)


class _Silent:
    """A watcher and a console that show nothing, and may ask to stop."""

    def __init__(self, stops: bool = False) -> None:
        self.stops = stops

    @property
    def interrupted(self) -> bool:
        """See `metabench.contracts.Console`."""
        return False

    def say(self, text: str) -> None:
        """See `metabench.contracts.Console`."""

    def watching(self, title: str) -> nullcontext[Watcher]:
        """See `metabench.contracts.Console`."""
        return nullcontext(self)

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return self.stops


def _prepared(plan: Plan, store: Store) -> Work:
    work = plan.prepare(plan.cells, store.records_by_name(), store, lambda: nullcontext(lambda done, total, name: None))
    console: Console = _Silent()
    work.introduce(console)
    return work


def _attempts(job: Job) -> Iterator[tuple[Cell, Attempt]]:
    """Yield each cell of a job with its attempt.

    Raises:
        NotConforming: a cell lacks one.
    """
    results = list(job.run(_Silent()))
    if not job.cells:
        return
    if len(results) != len(job.cells) or not all(isinstance(result, Attempt) for result in results):
        raise NotConforming(f"the job {job.key} of {len(job.cells)} cells yielded {results!r:.200}: an Attempt a cell")
    yield from ((cell, result) for cell, result in zip(job.cells, results, strict=True) if isinstance(result, Attempt))


def _without_seed(identity: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in identity.items() if name != "seed"}, sort_keys=True)


def check_torch(subject: Subject) -> None:
    """A plan is made without torch, so that a dry run answers at once."""
    path, profile = json.dumps(sys.path), json.dumps(subject.profile)
    command = [sys.executable, "-c", _PLANNING, path, str(subject.suite), profile]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotConforming(f"in a process of its own, the suite is not planned: {done.stderr.strip()[-300:]}")
    if done.stdout.split()[-1] != "False":
        raise NotConforming("the engine's module, or plan, imports torch: import it in prepare, or in the job")


def check_cells(subject: Subject) -> None:
    """Cells have ids of their own, which are the same in every plan, labels, a title and plain settings."""
    first, again = subject.plan().cells, subject.plan().cells
    if not first:
        raise NotConforming("the suite has no cells")
    if [(cell.id, dict(cell.identity)) for cell in first] != [(cell.id, dict(cell.identity)) for cell in again]:
        raise NotConforming("the same suite gives other ids or settings: id must be a hash of identity")
    if len({cell.id for cell in first}) < len(first):
        raise NotConforming("two cells have the same id: identity lacks a setting")
    for cell in first:
        if not re.fullmatch("[0-9a-f]{16}", cell.id):
            raise NotConforming(f"the id {cell.id!r} is not 16 hexadecimal digits: use contracts.content_hash")
        if json.loads(json.dumps(dict(cell.identity))) != dict(cell.identity) or "seed" not in cell.identity:
            raise NotConforming(f"the identity of '{cell.title}' is not plain data with a 'seed': {cell.identity}")
        lacking = [label for label in LABELS if not isinstance(cell.labels.get(label), str)]
        if lacking or not cell.title:
            raise NotConforming(f"the cell {cell.id} has no title, or no labels {lacking}, which are texts")


def check_seeds(subject: Subject) -> None:
    """Other seeds give the same cells but for their seed."""
    first, other = subject.plan([0]).cells, subject.plan([7]).cells
    if {cell.identity["seed"] for cell in other} != {7}:
        raise NotConforming("request.seeds is not used: it has the training seeds, instead of the suite's")
    if {_without_seed(cell.identity) for cell in first} != {_without_seed(cell.identity) for cell in other}:
        raise NotConforming("request.seeds changes more of identity than 'seed'")


def check_jobs(subject: Subject) -> None:
    """Jobs can be sent to a worker; each cell is in one of them, after the jobs that it needs."""
    with subject.work() as (plan, _, work):
        jobs = work.jobs()
        for job in jobs:
            if not isinstance(job.key, str) or not job.key:
                raise NotConforming(f"the key of a job is {job.key!r}: a text of its own")
        keys = [job.key for job in jobs]
        cells = [cell.id for job in jobs for cell in job.cells]
        if len(set(keys)) < len(keys):
            raise NotConforming("two jobs have the same key")
        if sorted(cells) != sorted(cell.id for cell in plan.cells if not cell.problem):
            raise NotConforming("without earlier records, every cell that can run must be in one job")
        for number, job in enumerate(jobs):
            unknown = set(job.after) - set(keys[:number])
            if unknown:
                raise NotConforming(f"the job {job.key} comes after {sorted(unknown)}, which no job before it is")
    file = read_suite(subject.suite)
    request = Request(subject.profile, device="cpu")
    plan = engine_of(file, subject.plugins).plan(file, request)
    with tempfile.TemporaryDirectory() as folder:
        for job in _prepared(plan, Store(Path(folder) / "out")).jobs():
            try:
                pickle.loads(pickle.dumps(job))
            except Exception as error:
                raise NotConforming(f"the job {job.key} cannot be sent to a worker: {error}") from error


def check_records(subject: Subject) -> None:
    """Each cell gets a record of its settings, which agrees with its per-episode results."""
    with subject.work() as (_, store, work), store.locked():
        for cell, attempt in (pair for job in work.jobs() for pair in _attempts(job)):
            record = attempt.record
            if record.cell != cell.id or record.identity != dict(cell.identity):
                raise NotConforming(f"the record of '{cell.title}' has another id or identity than its cell")
            labels = {name: str(getattr(record, name)) for name in LABELS}
            if labels != {name: cell.labels[name] for name in LABELS}:
                raise NotConforming(f"the record of '{cell.title}' has the labels {labels}, its cell {cell.labels}")
            if record.status != "ok":
                raise NotConforming(f"the record of '{cell.title}' is {record.status}: {record.error}")
            if attempt.episodes is None:
                raise NotConforming(f"the attempt of '{cell.title}' lacks its per-episode results")
            store.write(record, attempt.episodes, attempt.picture)
            try:
                store.episodes(store.records_by_name()[cell.id])
            except StoreError as error:
                raise NotConforming(str(error)) from error
            if record.data is None or not record.data.episodes:
                raise NotConforming("record.data.episodes is empty: methods could not be compared episode by episode")


def check_repeated(subject: Subject) -> None:
    """A second run gives the same values."""

    def values() -> dict[str, dict[str, Any]]:
        with subject.work() as (_, _, work):
            attempts = (attempt for job in work.jobs() for _, attempt in _attempts(job))
            return {
                attempt.record.cell: {name: array.tobytes() for name, array in attempt.episodes.figures.items()}
                for attempt in attempts
                if attempt.episodes
            }

    if values() != values():
        raise NotConforming("two runs of the suite differ: seed every draw by the cell and the number of the episode")


def check_kept(subject: Subject) -> None:
    """A record of an earlier run is kept, and its cell runs no more."""
    with subject.work() as (plan, store, work), store.locked():
        for _, attempt in (pair for job in work.jobs() for pair in _attempts(job)):
            store.write(attempt.record, attempt.episodes, attempt.picture)
        again = _prepared(plan, store)
        if set(again.kept) != {cell.id for cell in plan.cells} or any(job.cells for job in again.jobs()):
            raise NotConforming("cells with a good record run again: kept must have the records of the store")


def check_failures(subject: Subject) -> None:
    """A cell that ends its worker gets a failed record with the reason."""
    with subject.work() as (plan, _, work):
        for cell in plan.cells:
            record: Record = work.failed(cell, "its process was killed")
            if (record.cell, record.status) != (cell.id, "failed") or "its process was killed" not in str(record.error):
                raise NotConforming(f"failed returned {record.status}, {record.error!r} for '{cell.title}'")


def check_stops(subject: Subject) -> None:
    """A job that is asked to stop raises Interrupted."""
    with subject.work() as (_, store, work), store.locked():
        for job in work.jobs():
            try:
                list(job.run(_Silent(stops=True)))
            except Interrupted:
                continue
            raise NotConforming("a job goes on when watcher.should_stop() is true: ask it often, and raise Interrupted")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "torch": check_torch,
    "cells": check_cells,
    "seeds": check_seeds,
    "jobs": check_jobs,
    "records": check_records,
    "repeated": check_repeated,
    "kept": check_kept,
    "failures": check_failures,
    "stops": check_stops,
}
