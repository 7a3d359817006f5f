"""List the cells without results: failed, skipped, invalid and unfinished ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metabench.analysis.tables import Table
from metabench.records.runs import Runs
from metabench.text import counted, shape_text

#: Most unfinished cells that are listed.
_MOST = 200


@dataclass(frozen=True)
class WithoutResult:
    """A cell without results.

    Attributes:
        task: dataset, way, shot and backbone.
        method: the method.
        seed: the training seed.
        status: failed, skipped, invalid or unfinished.
        reason: why, in one line.
    """

    task: str
    method: str
    seed: str
    status: str
    reason: str


def cells_without_results(tables: Sequence[Table], runs: Runs) -> list[WithoutResult]:
    """Return the cells of the tables that are not ok, then those that a run has planned and not finished."""
    cells = cells_not_ok(tables)
    for unfinished in runs.unfinished():
        for cell in unfinished.cells[:_MOST]:
            way, shot = cell.get("way", ""), cell.get("shot", "")
            shape = shape_text(int(way), int(shot)) if way.isdecimal() and shot.isdecimal() else ""
            parts = (cell.get("dataset", ""), shape, cell.get("backbone", ""))
            cells.append(
                WithoutResult(
                    " · ".join(filter(None, parts)),
                    cell.get("algorithm", ""),
                    cell.get("seed", ""),
                    "unfinished",
                    f"planned in {unfinished.output}, without a record",
                )
            )
    return cells


def cells_not_ok(tables: Sequence[Table]) -> list[WithoutResult]:
    """Return the failed, skipped and invalid cells of the tables; of marked ones, by whom and why."""
    return [
        WithoutResult(table.task, row.name, str(record.seed), record.status, str(record.invalidated or record.error))
        for table in tables
        for row in table.rows
        for record in (*row.records, *row.confirmations)
        if record.status != "ok"
    ]


def remarks_on_unfinished(runs: Runs) -> list[str]:
    """Return lines about runs that are not finished."""
    lines = []
    for run in runs.unfinished():
        more = f" (the first {_MOST} are listed)" if len(run.cells) > _MOST else ""
        going_on = f"; {counted(run.checkpoints, 'training')} will go on from a checkpoint" if run.checkpoints else ""
        lines.append(
            f"{run.output}: {counted(len(run.cells), 'planned cell')} without a record{more}: run the suite again "
            f"to finish{going_on}"
        )
    return lines
