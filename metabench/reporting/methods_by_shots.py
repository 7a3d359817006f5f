"""Methods as rows and shots as columns: the table of a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from metabench.analysis.row_names import method_of
from metabench.analysis.tables import Row, Table
from metabench.reporting.figures import rounded, shown
from metabench.reporting.markup import latex_label
from metabench.reporting.sheets import Entry, Sheet
from metabench.text import counted

#: What the comparisons of a sheet are about, by the values of `PairedDifference.about_methods`.
_CLAIMS: Mapping[tuple[bool, ...], str] = {
    (True,): "over training seeds and episodes",
    (False,): "over episodes: of these weights, not of the methods",
    (False, True): "over training seeds and episodes where three seeds are in common, else of these weights",
}


def methods_by_shots(tables: Sequence[Table]) -> list[Sheet]:
    """Return one sheet for each backbone and metric, with a column for each dataset, way and shot."""
    alike: dict[tuple[str, str], list[Table]] = {}
    for table in tables:
        metric = next((row.metric for row in table.rows if row.finished), None)
        measured = "Results" if metric is None else metric.title + (f" in {metric.unit}" if metric.unit else "")
        alike.setdefault((table.backbone, measured), []).append(table)
    return [_Layout(backbone, measured, members).sheet() for (backbone, measured), members in alike.items()]


class _Layout:
    """The layout of the tables of one backbone.

    Args:
        backbone: its name.
        measured: the metric that ranks, with its unit.
        tables: the tables.
    """

    def __init__(self, backbone: str, measured: str, tables: Sequence[Table]) -> None:
        self._backbone = backbone
        self._measured_in = measured[:1].upper() + measured[1:]
        self._tables = tables
        self._rows = [{method_of(row): row for row in table.rows} for table in tables]
        self._measured = [row for rows in self._rows for row in rows.values() if row.primary]
        # One meaning for all intervals of a sheet.
        self._of_methods = all(row.method_ci95 is not None for row in self._measured if not row.floor)
        self._confirmed = [any(row.confirmed for row in table.rows) for table in tables]

    def sheet(self) -> Sheet:
        """Return the sheet."""
        datasets = list(dict.fromkeys(table.dataset for table in self._tables))
        one = len(datasets) == 1
        tasks = {(table.dataset, _way(table)) for table in self._tables}
        # Where all columns have one dataset and way, the title says them.
        groups = groupby(self._tables, lambda table: self._group(table, not one) if len(tasks) > 1 else "")
        spans = [(name, sum(self._width(table) for table in members)) for name, members in groups]
        headings = [text for table in self._tables for text in self._headings(table)]
        where = datasets[0] if one else counted(len(datasets), "dataset")
        ways = {_way(table) for table in self._tables}
        title = " · ".join([where, *(ways if len(ways) == 1 and "" not in ways else []), self._backbone])
        chance = [text for table in self._tables for text in self._chance(table)]
        return Sheet(
            title=title,
            caption=self._caption(", ".join(datasets), sorted(ways - {""})),
            label=latex_label(*datasets[:3], self._backbone),
            headings=["method", *headings],
            groups=[("", 1), *spans] if len(tasks) > 1 else [],
            lines=[self._line(name) for name in self._methods() if not self._is_floor(name)],
            below=[
                *(self._line(name) for name in self._methods() if self._is_floor(name)),
                *([[Entry("chance"), *map(Entry, chance)]] if any(chance) else []),
            ],
            notes=self._notes(),
        )

    def _methods(self) -> list[str]:
        """Return the methods by their mean place in the tables that have them; failures last."""
        names = dict.fromkeys(name for rows in self._rows for name in rows)
        ordered = [{name: place for place, name in enumerate(rows)} for rows in self._rows]

        def key(name: str) -> tuple[bool, float]:
            found = [
                (places[name], rows[name]) for places, rows in zip(ordered, self._rows, strict=True) if name in rows
            ]
            measured = [place for place, row in found if row.primary]
            places = measured or [place for place, _ in found]
            return not measured, sum(places) / len(places)

        return sorted(names, key=key)

    def _is_transductive(self, name: str) -> bool:
        return any(record.transductive for rows in self._rows if name in rows for record in rows[name].finished)

    def _is_floor(self, name: str) -> bool:
        return any(rows[name].floor for rows in self._rows if name in rows)

    def _line(self, name: str) -> list[Entry]:
        return [Entry(f"{name} (T)" if self._is_transductive(name) else name), *self._entries(name)]

    def _entries(self, name: str) -> Iterable[Entry]:
        for table, rows, confirmed in zip(self._tables, self._rows, self._confirmed, strict=True):
            row = rows.get(name)
            yield Entry("–") if row is None else self._entry(table, row)
            if confirmed:
                of_row = row.confirmed if row else None
                yield Entry(shown(row.metric, of_row.mean, of_row.ci95) if row and of_row else "–")

    def _entry(self, table: Table, row: Row) -> Entry:
        if row.primary is None:
            return Entry(row.records[0].status)
        half = row.method_ci95 if self._of_methods and row.method_ci95 is not None else row.primary.ci95
        text = shown(row.metric, row.primary.mean, half)
        if len(row.finished) < len(row.records):
            text += f" ({len(row.finished)}/{len(row.records)} seeds)"
        if row.rank is None and not row.floor:
            text += " (other episodes)"
        compared = sum(other.rank is not None for other in table.rows) > 1
        return Entry(text, best=compared and row.rank == 1 and not row.tie, tie=row.tie)

    def _group(self, table: Table, with_dataset: bool) -> str:
        return " ".join(filter(None, [table.dataset if with_dataset else "", _way(table)]))

    def _headings(self, table: Table) -> list[str]:
        return [_shot(table), f"{_shot(table)} confirmed"][: self._width(table)]

    def _width(self, table: Table) -> int:
        return 2 if any(row.confirmed for row in table.rows) else 1

    def _chance(self, table: Table) -> list[str]:
        metric = next((row.metric for row in table.rows if row.finished), None)
        text = rounded(metric, table.chance, 0.0) if metric and table.chance is not None else ""
        return [text, *[""] * (self._width(table) - 1)]

    def _caption(self, datasets: str, ways: Sequence[str]) -> str:
        """Return what the sheet shows: metric, data, episodes, seeds, intervals and marks."""
        of = f"{', '.join(ways)} episodes of {datasets}" if ways else f"episodes of {datasets}"
        episodes = sorted({row.primary.episodes for row in self._measured if row.primary})
        seeds = sorted({len(row.finished) for row in self._measured if not row.floor})
        tests = f"{'/'.join(f'{number:,}' for number in episodes)} test episodes"
        trained = f"{'/'.join(map(str, seeds))} training seed{'s' if seeds[-1:] != [1] else ''}"
        interval = "training seeds and episodes" if self._of_methods else "episodes"
        parts = [
            f"{self._measured_in} on {of}, backbone {self._backbone}: mean of {tests} and {trained} ± half the 95 % "
            f"interval over {interval}."
        ]
        versus = [row.versus_best for row in self._measured if row.versus_best]
        if versus:
            about = {difference.about_methods for difference in versus}
            parts.append(
                "{best}: best of a column; =: ties with it, p > .05 of the paired difference, adjusted for all pairs "
                f"of a column ({_CLAIMS[tuple(sorted(about))]})."
            )
        if any(map(self._is_floor, self._methods())):
            parts.append("Floors, which are not compared, come last.")
        if any(map(self._is_transductive, self._methods())):
            parts.append("(T): transductive: its answer to a query depends on the other queries.")
        if any(self._confirmed):
            parts.append("confirmed: the same weights on other test episodes, which nobody has chosen.")
        return " ".join(parts)

    def _notes(self) -> list[str]:
        """Return why entries are missing."""
        notes = []
        for table in self._tables:
            for row in table.rows:
                for record in row.records:
                    if record.status != "ok":
                        shape = table.shape
                        verb = "failed" if record.status == "failed" else f"is {record.status}"
                        notes.append(
                            f"{method_of(row)}, {table.dataset} {shape}, seed {record.seed} {verb}: {record.error}"
                        )
        return notes


def _way(table: Table) -> str:
    """Return the way as text; empty of a regression, and where ways vary."""
    return f"{table.way}-way" if table.way > 1 else ""


def _shot(table: Table) -> str:
    """Return the shot as text."""
    return f"{table.shot}-shot" if table.way > 0 and not table.setting else table.shape
