"""The matrix of paired differences of a table's best methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metabench.analysis.paired import ALPHA
from metabench.analysis.standings import difference_of
from metabench.analysis.tables import Row, Table, common_episodes
from metabench.reporting.figures import shown_difference
from metabench.reporting.report.drawing import METHODS, capital


@dataclass(frozen=True)
class Pairs:
    """Differences of the row's method minus the column's.

    Attributes:
        measured: what is compared.
        names: the methods.
        lines: of each method, text and verdict (``"better"``, ``"worse"`` or empty) against each.
        more: a sentence where there are further methods.
    """

    measured: str
    names: Sequence[str]
    lines: Sequence[Sequence[tuple[str, str]]]
    more: str


def pairs_of(table: Table) -> Pairs | None:
    """Return the matrix of paired differences of the best methods.

    A difference is marked where its p-value, adjusted for all pairs as in the table, is significant: no tie of the
    table is marked as a difference here. Returns None with fewer than two comparable methods.
    """
    compared = [row for row in table.rows if row.rank is not None and row.values is not None]
    rows = compared[:METHODS]
    if len(rows) < 2:
        return None
    common = common_episodes(compared)
    points = ", in points" if rows[0].metric.unit == "%" else ""
    return Pairs(
        measured=f"{capital(rows[0].metric.title)} of the row minus the column{points}",
        names=[row.name for row in rows],
        lines=[[("", "") if other is row else _pair(row, other, common) for other in rows] for row in rows],
        more=f"The best {len(rows)} of {len(compared)} methods." if len(compared) > len(rows) else "",
    )


def _pair(row: Row, other: Row, episodes: int) -> tuple[str, str]:
    interval = difference_of(row, other, episodes)
    clear = row.p_holm[other.name] <= ALPHA
    text = shown_difference(row.metric, interval.mean, interval.ci95) + (" *" if clear else "")
    return text, ("better" if interval.mean * row.metric.sign > 0 else "worse") if clear else ""
