"""What a verification has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from metabench.records.record import Record

#: The verdict on a cell. Of a cell that was tested again: its figures are the same to the digit, or within rounding, or
#: differ; or data or weights are not those of its record; or its figures differ, and so does the code. Of any cell:
#: its files contradict one another, or it cannot be tested again, or its files agree and it was not drawn.
Verdict = Literal["exact", "rounding", "differs", "other data", "other weights", "undecided", "altered", "unverifiable"]

#: The verdicts on figures that hold.
HOLDS = ("exact", "rounding")


@dataclass(frozen=True)
class CellVerdict:
    """The verdict on a cell.

    Attributes:
        record: its record.
        verdict: the verdict; None where its files agree, and it was not drawn.
        drawn: whether it was drawn to be tested again.
        reasons: what was found, a sentence each.
        notes: what limits the claim: other code, another machine, metrics that were not computed here.
    """

    record: Record
    verdict: Verdict | None = None
    drawn: bool = False
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def title(self) -> str:
        """Return a one-line description for people."""
        record = self.record
        source = f"{record.trained_on} → " if record.trained_on else ""
        parts = [record.algorithm, f"{source}{record.dataset}", record.backbone, record.shape, f"seed {record.seed}"]
        return " · ".join([*parts, *(["confirmation"] if record.confirms else [])])


@dataclass(frozen=True)
class Verification:
    """The verdict on a run.

    Attributes:
        source: the run.
        seed: the seed by which cells were drawn.
        cells: the verdicts on cells with results.
        tables: contradictions between the tables of the run and its records, a sentence each.
        checked_tables: names of the files of tables that were compared.
        without_results: number of failed and skipped cells.
    """

    source: str
    seed: int
    cells: Sequence[CellVerdict]
    tables: Sequence[str]
    checked_tables: Sequence[str]
    without_results: int

    @property
    def drawn(self) -> list[CellVerdict]:
        """Return the verdicts on the cells that were drawn."""
        return [cell for cell in self.cells if cell.drawn]

    @property
    def contradictions(self) -> bool:
        """Return whether files of the run contradict one another, or what was computed here."""
        wrong = ("altered", "differs", "other data", "other weights")
        return bool(self.tables) or any(cell.verdict in wrong for cell in self.cells)

    @property
    def passed(self) -> bool:
        """Return whether nothing contradicts, and cells were drawn, all of which hold."""
        return not self.contradictions and bool(self.drawn) and all(cell.verdict in HOLDS for cell in self.drawn)
