"""The page of a task: all methods that were tested on a dataset with a way and a shot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from metabench.analysis.tables import Row, Table
from metabench.records.runs import Runs
from metabench.reporting import leaderboard, remarks
from metabench.reporting.report.all_methods import Cell, Grouped, Heading, cells_of, grouped, groups_of, headings_of
from metabench.reporting.report.drawing import Styles
from metabench.reporting.report.page import table_remarks
from metabench.reporting.report.styles import Style
from metabench.reporting.report.without_results import WithoutResult, cells_not_ok
from metabench.reporting.site.addresses import addresses
from metabench.reporting.site.entries import Entry
from metabench.reporting.site.facts import COLUMNS, TITLES, Facts, facts_of, values_of

#: Columns that the table has as its first one, or as a fact.
_ELSEWHERE = ("trained on", "pretrained on")


@dataclass(frozen=True)
class Task:
    """The tables of a dataset, way and shot: one for each backbone.

    Attributes:
        title: dataset and shape, and that it is a regression.
        address: address of its page within the site.
        tables: its tables.
    """

    title: str
    address: str
    tables: Sequence[Table]


@dataclass(frozen=True)
class Line:
    """A row of a table: the method, its results, the runs that it is from, and cells that further columns show."""

    method: str
    style: Style
    facts: Facts
    results: Sequence[Cell]
    runs: Sequence[Entry]
    further: Sequence[Cell]


@dataclass(frozen=True)
class Standings:
    """A table of a task.

    Attributes:
        title: its backbone, with its numbers of episodes and seeds.
        lines: its rows.
        remarks: what the leaderboard remarks on it.
    """

    title: str
    lines: Sequence[Line]
    remarks: Sequence[str]


@dataclass(frozen=True)
class TaskView:
    """What the page of a task shows.

    Attributes:
        task: the task.
        results: headings of the columns between those of the method and of the run.
        further: headings of the columns after that.
        groups: name, title and whether they are shown at first, of the groups of columns.
        standings: its tables.
        lists: title and values of the facts that vary, by name, from which readers choose.
        same: what is the same for all methods, as sentences.
        missing: its cells without results.
        notes: explanations of the columns, machines, suites and licences.
    """

    task: Task
    results: Sequence[Heading]
    further: Sequence[Heading]
    groups: Sequence[tuple[str, str, bool]]
    standings: Sequence[Standings]
    lists: Mapping[str, tuple[str, Sequence[str]]]
    same: Sequence[str]
    missing: Sequence[WithoutResult]
    notes: Sequence[str]


def tasks_of(tables: Sequence[Table]) -> list[Task]:
    """Return the tasks of some tables, in their order."""
    groups = [(title, list(members)) for title, members in groupby(sorted(tables, key=_place), key=_title)]
    places = addresses("tasks", [title for title, _ in groups])
    return [Task(title, places[title], members) for title, members in groups]


def _place(table: Table) -> tuple[str, str, int, int, str, str]:
    return table.dataset, _kind(table), table.way, table.shot, table.setting, table.backbone


def _kind(table: Table) -> str:
    return table.rows[0].records[0].task


def _title(table: Table) -> str:
    parts = [table.dataset, table.shape]
    return " · ".join([*parts, "regression"] if _kind(table) == "regression" else parts)


def view_of(task: Task, runs: Runs, entries: Mapping[Path, Entry], styles: Styles) -> TaskView:
    """Return what the page of a task shows.

    Args:
        task: the task.
        runs: the records of all runs.
        entries: the runs by their directories.
        styles: style of each algorithm.
    """
    columns = [column for column in leaderboard.shown_columns(task.tables) if column.title not in _ELSEWHERE]
    results, further = _split(grouped(task.tables, columns))
    rows = [row for table in task.tables for row in table.rows]
    origins = {id(row): _origins(row, runs, entries) for row in rows}
    facts = {id(row): facts_of(row, [entry.name for entry in origins[id(row)]]) for row in rows}
    values = {fact: values_of(facts.values(), fact) for fact in TITLES}
    own = [fact for fact in COLUMNS if len(values[fact]) > 1]

    def line(row: Row) -> Line:
        said = [Cell(", ".join(facts[id(row)][fact]), left=True) for fact in own]
        return Line(
            row.name,
            styles[row.records[0].algorithm],
            facts[id(row)],
            cells_of(row, results),
            origins[id(row)],
            [*said, *cells_of(row, further)],
        )

    return TaskView(
        task,
        results=headings_of(results),
        further=[*(Heading(TITLES[fact].lower(), left=True) for fact in own), *headings_of(further)],
        groups=groups_of(further),
        standings=[
            Standings(_own_title(table), list(map(line, table.rows)), table_remarks(table)) for table in task.tables
        ],
        lists={fact: (TITLES[fact], found) for fact, found in values.items() if len(found) > 1},
        same=[f"{TITLES[fact]}, of all: {values[fact][0]}." for fact in COLUMNS if len(values[fact]) == 1],
        missing=cells_not_ok(task.tables),
        notes=[*leaderboard.legend(columns), *remarks.devices(task.tables), *remarks.origins(task.tables)],
    )


def _split(columns: Sequence[Grouped]) -> tuple[list[Grouped], list[Grouped]]:
    """Return the columns that are always shown, and those of groups."""
    return [pair for pair in columns if not pair[1]], [pair for pair in columns if pair[1]]


def _origins(row: Row, runs: Runs, entries: Mapping[Path, Entry]) -> list[Entry]:
    """Return the runs that the records of a row are from."""
    return [entries[directory] for directory in dict.fromkeys(map(runs.directory, row.records))]


def _own_title(table: Table) -> str:
    """Return the title of a table without dataset and shape, which the page has."""
    return table.title.removeprefix(f"{table.dataset} · {table.shape} · ")
