"""The table of all methods: its columns in groups, and its cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metabench.analysis.tables import Row, Table
from metabench.reporting import leaderboard
from metabench.reporting.columns import Column
from metabench.reporting.report.drawing import Styles
from metabench.reporting.report.styles import Style

#: The groups of columns: name, title, and whether they are shown at first. Columns of no group are always shown.
GROUPS = (
    ("parameters", "parameters that vary", True),
    ("metrics", "further metrics", False),
    ("costs", "costs", False),
)


@dataclass(frozen=True)
class Heading:
    """A heading of the table.

    Attributes:
        title: its text.
        left: whether the column is aligned left.
        group: name of its group; empty for columns that are always shown.
    """

    title: str
    left: bool
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """One entry of the table.

    Attributes:
        text: the text shown.
        left: whether the text is aligned left.
        value: sort key; None sorts by the text.
        group: name of the group of its column.
    """

    text: str
    left: bool = False
    value: float | str | None = None
    group: str = ""


@dataclass(frozen=True)
class Line:
    """A row of the table: the method with its style, then its cells."""

    method: str
    style: Style
    cells: Sequence[Cell]


@dataclass(frozen=True)
class AllMethods:
    """The table of all methods.

    Attributes:
        headings: the headings after that of the method.
        lines: the rows.
        groups: name, title and whether they are shown at first, of the groups that have columns.
    """

    headings: Sequence[Heading]
    lines: Sequence[Line]
    groups: Sequence[tuple[str, str, bool]]


def all_methods(tables: Sequence[Table], columns: Sequence[Column], styles: Styles) -> AllMethods:
    """Return the table of all methods.

    Args:
        tables: the tables.
        columns: all columns, as `leaderboard.shown_columns` gives them.
        styles: style of each method.
    """
    shown = grouped(tables, columns)
    lines = [
        Line(row.name, styles[row.name], [Cell(table.task, True), *cells_of(row, shown)])
        for table in tables
        for row in table.rows
    ]
    return AllMethods([Heading("task", True), *headings_of(shown)], lines, groups_of(shown))


#: A column with the name of its group.
Grouped = tuple[Column, str]


def grouped(tables: Sequence[Table], columns: Sequence[Column]) -> list[Grouped]:
    """Return the columns with their groups, without that of the method."""
    results = {column.title for column in leaderboard.shown_columns(tables, metrics=(), costs=False)}
    measured = {column.title for column in leaderboard.shown_columns(tables, costs=False)}
    first_parameter = len(columns) - len(leaderboard.parameter_names(tables))

    def group(place: int, title: str) -> str:
        if place >= first_parameter:
            return "parameters"
        return "" if title in results else "metrics" if title in measured else "costs"

    return [(column, group(i, column.title)) for i, column in enumerate(columns) if column.title != "algorithm"]


def headings_of(columns: Sequence[Grouped]) -> list[Heading]:
    """Return the headings of columns."""
    return [Heading(column.title, column.left, group) for column, group in columns]


def groups_of(columns: Sequence[Grouped]) -> list[tuple[str, str, bool]]:
    """Return name, title and whether they are shown at first, of the groups that have columns."""
    names = {group for _, group in columns}
    return [group for group in GROUPS if group[0] in names]


def cells_of(row: Row, columns: Sequence[Grouped]) -> list[Cell]:
    """Return the cells of a method."""
    cells = []
    for column, group in columns:
        value = column.value(row) if column.value else None
        cells.append(Cell(column.text(row), column.left, "" if column.value and value is None else value, group))
    return cells
