"""Columns, legend, remarks and sorting of the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from metabench.analysis.costs import (
    Cost,
    device,
    eval_rate,
    gflops,
    latency,
    mean_over_seeds,
    memory,
    precision,
    slow_latency,
    train_rate,
    validation,
)
from metabench.analysis.standings import Row, Table
from metabench.specs import PublishedResult
from metabench.text import value_text


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard.

    Attributes:
        title: heading of the column.
        text: returns the text of a row.
        value: returns the number behind the text, to sort by; None sorts by the text.
        legend: explanation of the heading; empty if it needs none.
        left: whether the column is left-aligned.
        optional: whether the column is omitted if all its texts are empty.
    """

    title: str
    text: Callable[[Row], str]
    value: Callable[[Row], float | None] | None = None
    legend: str = ""
    left: bool = False
    optional: bool = False

    def says(self, row: Row) -> bool:
        """Return whether the column has a value for a row."""
        return self.value(row) is not None if self.value else bool(self.text(row))


def _rank(row: Row) -> str:
    return "" if row.rank is None else f"{row.rank}{'=' if row.tie else ''}"


def _accuracy(row: Row) -> str:
    if row.accuracy is None:
        return row.records[0].status
    return f"{row.accuracy.mean * 100:.2f} ± {row.accuracy.ci95 * 100:.2f}"


def _difference(row: Row) -> str:
    versus = row.versus_best
    return "" if versus is None else f"{versus.difference * 100:+.2f} ± {versus.ci95 * 100:.2f}".replace("-", "−")


def _p(row: Row) -> str:
    if row.versus_best is None:
        return ""
    p = row.versus_best.p_holm
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _half(value: float | None) -> str:
    return "" if value is None else f"± {value * 100:.2f}"


def _published(row: Row) -> str:
    if row.published is None:
        return ""
    return published_accuracy(row.published.result) + ("" if row.published.same_protocol else "*")


def published_accuracy(result: PublishedResult) -> str:
    """Return a published accuracy with its interval, in percent, to four digits."""
    interval = "" if result.ci95 is None else f" ± {result.ci95 * 100:.4g}"
    return f"{result.accuracy * 100:.4g}{interval}"


def number(value: float | None) -> str:
    """Return a number rounded to three digits, or to an integer from 100; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cost(title: str, cost: Cost, legend: str = "", optional: bool = False) -> Column:
    """Return a column with the mean of a cost over the training seeds."""

    def mean(row: Row) -> float | None:
        return mean_over_seeds(row, cost)

    return Column(title, lambda row: number(mean(row)), mean, legend, optional=optional)


def _parameters(row: Row) -> int | None:
    return row.finished[0].parameters if row.finished else None


def _frozen_too(row: Row) -> int | None:
    """Return the number of all parameters where some are frozen."""
    every = row.finished[0].all_parameters if row.finished else None
    return None if every == _parameters(row) else every


def _validation(row: Row) -> float | None:
    return mean_over_seeds(row, validation)


#: In order of importance: a narrow terminal drops columns from the end.
COLUMNS = (
    Column(
        "#",
        _rank,
        lambda row: row.rank,
        "#: rank; = ties with the best on these episodes (adjusted p > .05)",
    ),
    Column("algorithm", lambda row: row.name, left=True),
    Column(
        "accuracy %",
        _accuracy,
        lambda row: row.accuracy.mean if row.accuracy else None,
        "accuracy: mean over the test episodes ± half its 95 % interval over episodes (Student t)",
    ),
    Column(
        "T",
        lambda row: "T" if any(record.transductive for record in row.finished) else "",
        legend="T: measured as transductive: a query's scores depend on the other queries",
        left=True,
    ),
    Column(
        "alone %",
        lambda row: "" if row.inductive is None else f"{row.inductive * 100:.2f} {_half(row.inductive_ci95)}",
        lambda row: row.inductive,
        "alone: accuracy with every query predicted on its own ± half its 95 % interval over episodes",
        optional=True,
    ),
    Column(
        "vs best",
        _difference,
        lambda row: row.versus_best.difference if row.versus_best else None,
        "vs best: difference to the best on the same episodes ± half its 95 % interval over them",
        optional=True,
    ),
    Column(
        "p",
        _p,
        lambda row: row.versus_best.p_holm if row.versus_best else None,
        "p: probability of a difference this large by chance of the episodes, adjusted for all pairs of the table",
        optional=True,
    ),
    Column(
        "data",
        lambda row: _half(row.data_ci95),
        lambda row: row.data_ci95,
        "data: half the 95 % interval about the data: other classes with other images",
        optional=True,
    ),
    Column(
        "seeds",
        lambda row: _half(row.seed_ci95),
        lambda row: row.seed_ci95,
        "seeds: half the 95 % interval between training seeds",
        optional=True,
    ),
    Column(
        "published %",
        _published,
        lambda row: row.published.result.accuracy if row.published else None,
        "published: * if the protocol differs; sources and differences are in leaderboard.md and the report",
        optional=True,
    ),
    Column(
        "val %",
        lambda row: "" if (mean := _validation(row)) is None else f"{mean * 100:.2f}",
        _validation,
        "val: validation accuracy of the tested weights; choose methods and parameters by it, not by the test accuracy",
        optional=True,
    ),
    _cost("test ep/s", eval_rate),
    _cost("train ep/s", train_rate),
    _cost("peak MiB", memory),
    _cost("p50 ms", latency, "p50, p95: milliseconds to adapt to and classify one episode"),
    _cost("p95 ms", slow_latency),
    _cost("GFLOP", gflops, "GFLOP: convolutions and matrix products of one test episode", optional=True),
    Column(
        "params",
        lambda row: "–" if (parameters := _parameters(row)) is None else f"{parameters:,}",
        _parameters,
    ),
    Column(
        "all params",
        lambda row: "" if (parameters := _frozen_too(row)) is None else f"{parameters:,}",
        _frozen_too,
        "params: trained parameters; all params: those of frozen backbones, too",
        optional=True,
    ),
    Column(
        "precision",
        lambda row: ", ".join(sorted({precision(record) for record in row.records} - {"float32"})),
        legend="precision: precision of the backbone, if not float32",
        left=True,
        optional=True,
    ),
    Column("device", lambda row: device(row.records[0]), left=True),
)

#: Sorting keys: functions of a row, in ascending order; ranks do not change.
SORT_KEYS: dict[str, Callable[[Row], float | None]] = {
    "accuracy": lambda row: -row.accuracy.mean if row.accuracy else None,
    "alone": lambda row: -row.inductive if row.inductive is not None else None,
    "validation": lambda row: _negative(_validation(row)),
    "algorithm": lambda row: 0.0,
    "throughput": lambda row: _negative(mean_over_seeds(row, eval_rate)),
    "training": lambda row: _negative(mean_over_seeds(row, train_rate)),
    "latency": lambda row: mean_over_seeds(row, latency),
    "memory": lambda row: mean_over_seeds(row, memory),
    "flops": lambda row: mean_over_seeds(row, gflops),
}


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def sort_tables(tables: Sequence[Table], by: str) -> list[Table]:
    """Return the tables with rows sorted by one of `SORT_KEYS`.

    Rows without a value come last, by name; those without an accuracy after all others.
    """

    def key(row: Row) -> tuple[bool, bool, float, str]:
        value = SORT_KEYS[by](row)
        return row.accuracy is None, value is None, value or 0.0, row.name

    return [replace(table, rows=sorted(table.rows, key=key)) for table in tables]


def shown_columns(tables: Sequence[Table]) -> list[Column]:
    """Return the columns without optional ones that are empty in all tables, then the varying parameters."""
    rows = [row for table in tables for row in table.rows]
    columns = [column for column in COLUMNS if not column.optional or any(column.says(row) for row in rows)]
    return [*columns, *(_parameter(name, rows) for name in parameter_names(tables))]


def parameter_names(tables: Sequence[Table]) -> list[str]:
    """Return the names of the parameters that vary within a table."""
    return list(dict.fromkeys(name for table in tables for row in table.rows for name in row.params))


def _parameter(name: str, rows: Sequence[Row]) -> Column:
    """Return the column of a parameter that varies within a table."""

    def text(row: Row) -> str:
        return value_text(row.params[name]) if name in row.params else ""

    are_numbers = all(isinstance(row.params[name], (int, float)) for row in rows if name in row.params)
    title = f"params.{name}" if any(name == column.title for column in COLUMNS) else name
    return Column(title, text, (lambda row: row.params.get(name)) if are_numbers else None, left=not are_numbers)


def legend(columns: Sequence[Column]) -> list[str]:
    """Return the explanations of the columns, one per line."""
    return [column.legend for column in columns if column.legend]


def remarks(table: Table) -> list[str]:
    """Return the remarks on a table: failed and skipped cells, other test episodes, ties, oddities of the data."""
    return [*_unfinished(table), *_other_episodes(table), *_ties(table), *_data(table)]


def _data(table: Table) -> list[str]:
    """Return each remark on the data once, whatever the number of methods."""
    data = [record.data for row in table.rows for record in row.records if record.data]
    return list(dict.fromkeys(f"{table.dataset}: {remark}" for part in data for remark in part.remarks))


def _unfinished(table: Table) -> list[str]:
    lines = []
    for row in table.rows:
        for record in row.records:
            seed = f" (seed {record.seed})" if len(row.records) > 1 else ""
            if record.status != "ok":
                verb = "failed" if record.status == "failed" else f"is {record.status}"
                lines.append(f"{row.name}{seed} {verb}: {record.error}")
            lines += [f"{row.name}{seed}: {remark}" for remark in record.remarks]
    return lines


def _other_episodes(table: Table) -> list[str]:
    names = [row.name for row in table.rows if row.accuracy and row.rank is None]
    return [f"tested on other episodes, so neither ranked nor compared: {', '.join(names)}"] if names else []


def _ties(table: Table) -> list[str]:
    lines = []
    for row in table.rows:
        if row.tie and row.versus_best and row.versus_best.settled_by:
            needed = row.versus_best.settled_by
            count = f"{needed:,}" if needed < 1_000_000 else "more than a million"
            lines.append(
                f"{row.name} ties with the best; if the difference is as measured, {count} episodes would show it "
                "in four of five runs"
            )
    return lines


def sources(tables: Sequence[Table]) -> list[str]:
    """Return a line for each published result: accuracy, source, and differences of protocol."""
    lines: dict[str, None] = {}  # an ordered set
    for table in tables:
        for row in table.rows:
            if row.published:
                result, differences = row.published.result, row.published.differences
                protocol = f"other protocol: {'; '.join(differences)}" if differences else "the same protocol"
                shape = f"{result.way}-way {result.shot}-shot"
                lines[f"{row.name} {shape}: {published_accuracy(result)} % in {result.source}; {protocol}"] = None
    return list(lines)


def devices(tables: Sequence[Table]) -> list[str]:
    """Return a line for each machine."""
    records = [record for table in tables for row in table.rows for record in row.records]
    return [f"{short}: {name}" for short, name in sorted({(device(record), record.device) for record in records})]
