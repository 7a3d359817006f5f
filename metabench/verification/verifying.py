"""Verify a run: compare its files, and test a random part of its cells again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from metabench.analysis.declared import measures_of
from metabench.analysis.metrics import by_name
from metabench.analysis.shift import measures_of_shift
from metabench.engine.progress import Watcher
from metabench.errors import shown
from metabench.executors.forks import start_is_cheap
from metabench.executors.preparation import plan_in_worker
from metabench.executors.processes import Died, run_jobs
from metabench.planning.cells import Cell
from metabench.planning.confirmation import confirmed_by
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import read_suite, resolve
from metabench.records.record import Record
from metabench.records.runs import Runs
from metabench.records.store import Store
from metabench.records.trained import TrainingFiles
from metabench.registry.manager import PluginManager
from metabench.registry.own import FEW_SHOT
from metabench.verification.agreement import contradictions, table_contradictions, weights_problem
from metabench.verification.drawing import drawn
from metabench.verification.retest import Retest
from metabench.verification.verdicts import CellVerdict, Verification


@dataclass(frozen=True)
class Request:
    """What to verify.

    Attributes:
        directory: the output directory of the run.
        source: its name for people.
        only: accepted values by filter (`metabench.records.runs.Runs`).
        part: the part of the cells to test again (`metabench.verification.drawing.parse_part`).
        seed: the seed of the draw.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    directory: Path
    source: str
    only: Mapping[str, Sequence[str]]
    part: int | float | None
    seed: int
    device: str


def verify(request: Request, started: Callable[[str], Watcher]) -> Verification:
    """Compare the files of a run, and test a random part of its cells again; nothing in the run is written.

    Args:
        request: what to verify.
        started: called with the title of each cell that is tested; returns its progress watcher.

    Raises:
        Interrupted: a watcher asked to stop.
        MetabenchError: the run or its suite cannot be read, or raw data are missing.
    """
    plugins = PluginManager.from_environment()
    records = Runs.read([request.directory], request.only).records
    with_results = [record for record in records if record.status not in ("failed", "skipped")]
    planned, reason = _planned(request.directory, with_results, plugins)
    compared = [_compared(request.directory, record, planned, reason, plugins) for record in with_results]
    able = [cell for cell in compared if cell.verdict is None]
    retests = [
        Retest(request.directory, planned[cell.record.cell], cell.record, request.device)
        for cell in drawn(able, request.part, request.seed)
    ]
    tested = {verdict.record.cell: verdict for verdict in _tested(retests, started)}
    checked, tables = table_contradictions(request.directory, plugins)
    return Verification(
        source=request.source,
        seed=request.seed,
        cells=[tested.get(cell.record.cell, cell) for cell in compared],
        tables=tables,
        checked_tables=checked,
        without_results=len(records) - len(with_results),
    )


def _planned(directory: Path, records: Sequence[Record], plugins: PluginManager) -> tuple[dict[str, Cell], str]:
    """Return the cells of the suite of a run by id, or why there are none that can be tested."""
    path = directory / "suite.yaml"
    if not path.is_file():
        return {}, "the run has no suite.yaml: only a cell of `metabench run` can be tested again"
    read = read_suite(path)
    engine = str(read.data.get("engine", FEW_SHOT))
    if engine != FEW_SHOT:
        return {}, f"it is of the engine '{shown(engine)}', whose cells metabench cannot test again"
    suite, file = resolve(read)
    suite = suite.with_seeds(sorted({record.seed for record in records}) or suite.seeds)
    cells = plan_in_worker(suite, file) if start_is_cheap() else make_plan(suite, file, plugins)
    cells = [*cells, *(again for cell in cells if (again := confirmed_by(cell)) is not None)]
    return {cell.id: cell for cell in cells}, ""


def _compared(
    directory: Path, record: Record, planned: Mapping[str, Cell], reason: str, plugins: PluginManager
) -> CellVerdict:
    """Return the verdict on the files of a cell; None as its verdict where they agree and can be tested again."""
    if record.status == "invalid":
        return CellVerdict(record, "altered", reasons=(record.error or "its record is invalid",))
    cell = planned.get(record.cell)
    measures = [*measures_of(plugins, record.task), *(measures_of_shift(cell.test) if cell else [])]
    # Only the few-shot engine makes ids from settings.
    found = contradictions(Store(directory), record, by_name(measures), hashed=not (reason or record.external))
    if found:
        return CellVerdict(record, "altered", reasons=tuple(found))
    missing, wrong = weights_problem(directory, record)
    if wrong:
        return CellVerdict(record, "other weights", reasons=(wrong,))
    if record.external:
        reason = f"its results were imported from {record.external}"
    elif cell is None:
        reason = reason or "suite.yaml has not its settings"
    elif cell.training.schedule and TrainingFiles(directory, cell.training.id).read() is None:
        reason = f"the summary of its training, weights/{cell.training.id}.json, is not kept"
    else:
        reason = cell.problem or missing
    return CellVerdict(record, "unverifiable" if reason else None, reasons=(reason,) if reason else ())


def _tested(retests: Sequence[Retest], started: Callable[[str], Watcher]) -> Iterator[CellVerdict]:
    """Yield the verdict on each cell: tested in workers, which code of plugins cannot spoil, or in this process."""

    def start(retest: Retest) -> Watcher:
        return started(retest.cell.title)

    if not start_is_cheap():
        for retest in retests:
            yield from retest.run(start(retest))
        return
    for retest, result in run_jobs(retests, 1, torch.get_num_threads(), start):
        if isinstance(result, Died):
            yield CellVerdict(retest.record, "undecided", True, (f"its test ends here: {result.problem}",))
        else:
            yield result
