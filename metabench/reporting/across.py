"""A ranking over datasets as text, Markdown, LaTeX, HTML, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from metabench.analysis.across import LEAST_DATASETS, Ranking, Share, Standing
from metabench.reporting.json_text import to_json
from metabench.reporting.sheets import Entry, Sheet
from metabench.text import counted

#: Most names of datasets or tables in a sentence.
_NAMED = 12


def ranking_sheet(ranking: Ranking) -> Sheet:
    """Return a ranking as a sheet."""
    standings, datasets = ranking.standings, ranking.datasets
    any_failed = any(standing.failed for standing in standings)
    intervals = (
        "95 % intervals by a bootstrap over datasets in brackets"
        if len(datasets) >= LEAST_DATASETS
        else f"fewer than {LEAST_DATASETS} datasets, so no intervals"
    )
    best = standings[0].mean_rank.value if standings and standings[0].mean_rank else None
    return Sheet(
        title=f"{counted(len(datasets), 'dataset')} · {counted(ranking.tables, 'table')}",
        caption=(
            f"Methods over {counted(len(datasets), 'dataset')} ({_listed(datasets)}): mean rank, and share of the pairs"
            f" with another method in which it is better; {intervals}. The tables of a dataset are averaged first, and "
            "methods with a result in every table have a rank among them. {best}: best mean rank."
        ),
        label="tab:across-datasets",
        headings=["method", "mean rank", "wins %", "datasets", *(["failed cells"] if any_failed else [])],
        lines=[
            [
                Entry(standing.name),
                Entry(
                    _text(standing.mean_rank, 1, 2),
                    best=standing.mean_rank is not None and standing.mean_rank.value == best,
                ),
                Entry(_text(standing.wins, 100, 1)),
                Entry(str(standing.datasets)),
                *([Entry(str(standing.failed))] if any_failed else []),
            ]
            for standing in standings
        ],
        notes=[
            *(["a failed cell is worse than all that have a value"] if any_failed else []),
            *_missing(standings),
        ],
    )


def _missing(standings: Sequence[Standing]) -> list[str]:
    """Return which methods have no mean rank, once for each list of tables in which they have no result."""
    methods: dict[tuple[str, ...], list[str]] = {}
    for standing in standings:
        if standing.missing:
            methods.setdefault(tuple(standing.missing), []).append(standing.name)
    return [
        f"without a mean rank, because they have no result in {_listed(tables)}: {', '.join(names)}"
        for tables, names in methods.items()
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f", … ({len(names)} in all)" if len(names) > _NAMED else "")


def _text(share: Share | None, scale: float, decimals: int) -> str:
    if share is None:
        return "–"
    value = f"{share.value * scale:.{decimals}f}"
    if share.low is None or share.high is None:
        return value
    return f"{value} [{share.low * scale:.{decimals}f}, {share.high * scale:.{decimals}f}]"


def ranking_csv(ranking: Ranking) -> str:
    """Return a ranking as CSV, unrounded: one row a method."""
    rows = [_row(standing) for standing in ranking.standings]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "missing": "; ".join(row["missing"])} for row in rows)
    return stream.getvalue()


def ranking_json(ranking: Ranking) -> str:
    """Return a ranking as a JSON list: one object a method."""
    return "[\n" + ",\n".join(to_json(_row(standing)) for standing in ranking.standings) + "\n]\n"


def _row(standing: Standing) -> dict[str, Any]:
    return {
        "method": standing.name,
        **_figures("mean_rank", standing.mean_rank),
        **_figures("wins", standing.wins),
        "datasets": standing.datasets,
        "failed": standing.failed,
        "missing": list(standing.missing),
    }


def _figures(name: str, share: Share | None) -> dict[str, float | None]:
    return {
        name: share.value if share else None,
        f"{name}_low": share.low if share else None,
        f"{name}_high": share.high if share else None,
    }
