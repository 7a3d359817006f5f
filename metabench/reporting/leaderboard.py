"""Choose the columns of a leaderboard, and explain them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from metabench.analysis.metrics import OF_TASK
from metabench.analysis.tables import Row, Table
from metabench.errors import UsageError, nearest
from metabench.reporting.columns import (
    COMPARISONS,
    COSTS,
    FIRST,
    ON_DEMAND,
    VALIDATION,
    VALIDATION_OF_NUMBERS,
    Column,
    engine_costs,
    metric_column,
    of_tables,
)
from metabench.reporting.figures import metrics_of
from metabench.text import value_text


def shown_columns(tables: Sequence[Table], metrics: Collection[str] | None = None, costs: bool = True) -> list[Column]:
    """Return the columns, without optional ones that are empty in all tables.

    Args:
        tables: the tables.
        metrics: names of the metrics to show beside those that rank; None shows all.
        costs: whether validation, costs and varying parameters are shown, too.
    """
    rows = [row for table in tables for row in table.rows]
    columns = _columns(tables, metrics, costs)
    return [column for column in columns if not column.optional or any(column.says(row) for row in rows)]


def chosen_columns(tables: Sequence[Table], names: Sequence[str]) -> list[Column]:
    """Return the columns of these names, in their order.

    Args:
        tables: the tables.
        names: titles of columns, without the unit %; ``rank`` for that of ranks.

    Raises:
        UsageError: a name is unknown, or there is none.
    """
    columns = [*_columns(tables, None, costs=True), *ON_DEMAND, *of_tables(tables)]
    known = {_column_name(column): column for column in columns}
    for name in names:
        if name not in known:
            raise UsageError(f"--columns: no column '{name}'{nearest(name, known)}. Columns: {', '.join(known)}")
    if not names:
        raise UsageError(f"--columns: name at least one of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def _column_name(column: Column) -> str:
    return "rank" if column.title == "#" else column.title.removesuffix(" %")


def _columns(tables: Sequence[Table], metrics: Collection[str] | None, costs: bool) -> list[Column]:
    """Return all columns, also those that are empty; arguments as in `shown_columns`."""
    rows = [row for table in tables for row in table.rows]
    known, ranking = metrics_of(tables), {row.finished[0].ranked_by for row in rows if row.finished}
    columns = [metric_column(name, metric, name in ranking) for name, metric in known.items()]
    first = [column for column, name in zip(columns, known, strict=True) if name in ranking]
    further = [
        column
        for column, name in zip(columns, known, strict=True)
        if name not in ranking and (metrics is None or name in metrics)
    ]
    tasks = {row.records[0].task for row in rows}
    if not first:  # no cell is ok: the column of the metric that would rank names the others' status
        measure = OF_TASK["regression" if tasks == {"regression"} else "classification"][0]
        first = [metric_column(measure.name, measure.declaration, ranks=True)]
    validation = VALIDATION_OF_NUMBERS if "regression" in tasks else VALIDATION
    comparisons = [_about(column, rows) for column in COMPARISONS]
    comparisons = [_without_percent(column) for column in comparisons] if "regression" in tasks else comparisons
    of_costs = [*engine_costs(rows), *COSTS] if costs else []
    ordered = [*FIRST, *first, *comparisons, *([validation] if costs else []), *further, *of_costs]
    titles = {column.title for column in ordered}
    return [*ordered, *(_parameter(name, rows, titles) for name in parameter_names(tables) if costs)]


def _about(column: Column, rows: Sequence[Row]) -> Column:
    """Return a column with what its comparisons are about: methods, or these weights."""
    about = {row.versus_best.about_methods for row in rows if row.versus_best}
    endings = {
        (True,): "over training seeds and episodes",
        (False,): "over episodes, of these weights: a claim about the methods needs three training seeds",
        (False, True): "over training seeds and episodes, where three seeds are in common; else over episodes",
    }
    if column.title != "vs best" or not about:
        return column
    if any(row.pooled for row in rows):
        return replace(column, legend=f"{column.legend} over episodes, of these weights")
    return replace(column, legend=f"{column.legend} {endings[tuple(sorted(about))]}")


def _without_percent(column: Column) -> Column:
    return replace(column, title=column.title.removesuffix(" %"))


def parameter_names(tables: Sequence[Table]) -> list[str]:
    """Return the names of the parameters that vary within a table."""
    return list(dict.fromkeys(name for table in tables for row in table.rows for name in row.params))


def _parameter(name: str, rows: Sequence[Row], taken: Collection[str]) -> Column:
    """Return the column of a parameter that varies within a table."""

    def text(row: Row) -> str:
        return value_text(row.params[name]) if name in row.params else ""

    are_numbers = all(isinstance(row.params[name], (int, float)) for row in rows if name in row.params)
    title = f"params.{name}" if name in taken else name
    return Column(title, text, (lambda row: row.params.get(name)) if are_numbers else None, left=not are_numbers)


def chance_texts(table: Table, columns: Sequence[Column]) -> list[str] | None:
    """Return the texts of the line of chance, one for each column; None where chance means nothing."""
    if table.chance is None:
        return None
    heading = next(row.metric.heading for row in table.rows if row.finished)
    texts = {"algorithm": "chance", heading: f"{100 * table.chance:.2f}"}
    return [texts.get(column.title, "") for column in columns]


def legend(columns: Sequence[Column]) -> list[str]:
    """Return the explanations of the columns, one per line."""
    return [column.legend for column in columns if column.legend]
