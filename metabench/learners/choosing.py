"""Choose a cell of a run; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from metabench.errors import UsageError, nearest, shown
from metabench.records.record import Record

#: Most cells that a message lists.
_LISTED = 10


def chosen(records: Sequence[Record], cell: str | None) -> Record:
    """Return the record of a cell with results.

    Args:
        records: the records of a run.
        cell: the id of the cell, or its first letters; None means the only one.

    Raises:
        UsageError: the id fits no cell or several cells, or the cell has no results.
    """
    found = [record for record in records if record.cell.startswith(cell or "")]
    if len({record.cell for record in found}) != 1:
        names = ", ".join(map(_name, (found or records)[:_LISTED]))
        if cell is None:
            raise UsageError(
                f"{len(found)} cells are there, and one is needed: name it, or filter by algorithm, shot, …: {names}"
            )
        hint = nearest(cell, [record.cell for record in records])
        problem = "several cells begin with" if found else "there is no cell"
        raise UsageError(f"{problem} '{shown(cell)}'{'' if found else hint}: {names}")
    if found[0].status != "ok":
        raise UsageError(f"cell {found[0].cell} has no results, it is {found[0].status}: {found[0].error}")
    return found[0]


def _name(record: Record) -> str:
    return f"{record.cell} ({record.algorithm})"
