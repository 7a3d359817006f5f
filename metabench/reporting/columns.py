"""The columns that a leaderboard may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from metabench.analysis.costs import (
    Cost,
    cpu_seconds,
    device,
    eval_rate,
    gflops,
    joules,
    latency,
    mean_over_seeds,
    memory,
    on_the_front,
    points_per_minute,
    precision,
    slow_latency,
    train_rate,
    wall_seconds,
)
from metabench.analysis.tables import Row, Table
from metabench.records.measured import Declaration, EngineCost
from metabench.records.record import Record
from metabench.reporting.figures import (
    metric_of,
    number,
    published_accuracy,
    rounded,
    shown,
    shown_difference,
    validated_by,
    validation_of,
)


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


def _difference(row: Row) -> str:
    versus = row.versus_best
    return "" if versus is None else shown_difference(row.metric, versus.difference, versus.ci95)


def _p(row: Row) -> str:
    if row.versus_best is None:
        return ""
    p = row.versus_best.p_holm
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _alone(row: Row) -> float | None:
    """Return the metric that ranks with every query on its own, of a transductive method: the others have no other."""
    return row.inductive if any(record.transductive for record in row.finished) else None


def _confirmed(row: Row) -> float | None:
    return row.confirmed.mean if row.confirmed else None


def _looks(row: Row) -> int | None:
    """Return the number of looks at the test, where there were several."""
    return row.looks if row.looks and row.looks > 1 else None


def _half(row: Row, value: float | None) -> str:
    return "" if value is None else f"± {rounded(row.metric, value, value)}"


def _published(row: Row) -> str:
    if row.published is None:
        return ""
    return published_accuracy(row.published.result) + ("" if row.published.same_protocol else "*")


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


def _validation_text(row: Row) -> str:
    mean, metric = validation_of(row), validated_by(row)
    if mean is None:
        return ""
    return rounded(metric, mean, 0.0) if metric.unit == "%" else f"{mean * metric.scale:.3g}"


#: Follows the metric that ranks.
_CONFIRMED = Column(
    "confirmed %",
    lambda row: "" if row.confirmed is None else shown(row.metric, row.confirmed.mean, row.confirmed.ci95),
    _confirmed,
    "confirmed: the same weights on other test episodes, which nobody has chosen ± half its 95 % interval",
    optional=True,
)


#: In order of importance: a narrow terminal drops columns from the end. Those of metrics are before and between them.
FIRST = (
    Column(
        "#",
        _rank,
        lambda row: row.rank,
        "#: rank; = ties with the best on these episodes (adjusted p > .05)",
    ),
    Column("algorithm", lambda row: row.name, left=True),
    Column(
        "trained on",
        lambda row: row.trained_on,
        legend="trained on: dataset of the training; the test is of the same episodes for all",
        left=True,
        optional=True,
    ),
)


COMPARISONS = (
    _CONFIRMED,
    Column(
        "T",
        lambda row: "T" if any(record.transductive for record in row.finished) else "",
        legend="T: measured as transductive: a query's scores depend on the other queries",
        left=True,
    ),
    Column(
        "alone %",
        lambda row: "" if (alone := _alone(row)) is None else shown(row.metric, alone, row.inductive_ci95),
        _alone,
        "alone: the metric that ranks, with every query of a transductive method predicted on its own ± half its 95 % "
        "interval over episodes; the others predict alone what they predict together",
        optional=True,
    ),
    Column(
        "pretrained on",
        lambda row: ", ".join(sorted({record.pretrained_on for record in row.finished} - {""})),
        legend="pretrained on: images that the weights of the backbone were pretrained on, as it declares",
        left=True,
        optional=True,
    ),
    Column(
        "vs best",
        _difference,
        lambda row: row.versus_best.difference if row.versus_best else None,
        "vs best: difference to the best on the same episodes ± half its 95 % interval",
        optional=True,
    ),
    Column(
        "p",
        _p,
        lambda row: row.versus_best.p_holm if row.versus_best else None,
        "p: probability of a difference this large by chance, adjusted for all pairs of the table",
        optional=True,
    ),
    Column(
        "data",
        lambda row: _half(row, row.data_ci95),
        lambda row: row.data_ci95,
        "data: half the 95 % interval about the data: other classes with other images",
        optional=True,
    ),
    Column(
        "seeds",
        lambda row: _half(row, row.seed_ci95),
        lambda row: row.seed_ci95,
        "seeds: half the 95 % interval between training seeds",
        optional=True,
    ),
    Column(
        "looks",
        lambda row: "" if (looks := _looks(row)) is None else str(looks),
        _looks,
        "looks: tests of this algorithm on these episodes in its folder, with any parameters, if several: a result may "
        "owe something to the choice among them; `metabench run --confirm` tests once on others",
        optional=True,
    ),
    Column(
        "trials",
        lambda row: "" if row.tuning_trials is None else str(row.tuning_trials),
        lambda row: row.tuning_trials,
        "trials: parameters that were tried on validation (`metabench tune`); 0 where there was nothing to search",
        optional=True,
    ),
    Column(
        "published %",
        _published,
        lambda row: row.published.result.accuracy if row.published else None,
        "published: * if the protocol differs; sources and differences are in leaderboard.md and the report",
        optional=True,
    ),
)


VALIDATION = Column(
    "val %",
    _validation_text,
    validation_of,
    "val: validation accuracy of the tested weights; choose methods and parameters by it, not by the test accuracy",
    optional=True,
)


#: The same of regressions, whose unit is not %.
VALIDATION_OF_NUMBERS = replace(
    VALIDATION,
    title="val",
    legend="val: the metric that ranks (of a regression, its error) in validation of the tested weights; choose by it",
)


COSTS = (
    _cost("test ep/s", eval_rate),
    _cost("train ep/s", train_rate),
    _cost("peak MiB", memory),
    _cost("p50 ms", latency, "p50, p95: milliseconds to adapt to one episode and to answer its queries"),
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


#: Columns that are shown where ``--columns`` names them.
ON_DEMAND = (
    _cost("CPU s", cpu_seconds, "CPU s: processor seconds of training and test, of all threads"),
    _cost("wall s", wall_seconds, "wall s: seconds of training and test"),
    _cost(
        "J",
        joules,
        "J: joules of training and test as the GPU (NVML) or the processor packages (RAPL) report them, those of other "
        "programs in that time included; – where they do not",
    ),
)


def engine_costs(rows: Sequence[Row]) -> list[Column]:
    """Return a column for each cost that only an engine knows (`metabench.records.record.Record.costs`)."""
    known = {name: cost for row in rows for record in row.finished for name, cost in record.costs.items()}

    def column(name: str, cost: EngineCost) -> Column:
        def read(record: Record) -> float | None:
            return record.costs[name].value if name in record.costs else None

        return _cost(cost.title, read, f"{cost.title}: {cost.summary}", optional=True)

    return [column(name, cost) for name, cost in known.items()]


def of_tables(tables: Sequence[Table]) -> tuple[Column, Column]:
    """Return the columns of accuracy per cost, which depend on the table of a row."""
    chances = {id(row): table.chance for table in tables for row in table.rows}
    fronts = [(table, on_the_front(table)) for table in tables]
    front = {id(row) for table, names in fronts for row in table.rows if row.name in names}

    def ratio(row: Row) -> float | None:
        return points_per_minute(row, chances.get(id(row)))

    return (
        Column(
            "points/min",
            lambda row: number(ratio(row)),
            ratio,
            "points/min: points above chance for each minute of processor time (on a GPU, of time) of training and "
            "test; it favours what costs nothing, so read it beside the accuracy",
        ),
        Column(
            "front",
            lambda row: "yes" if id(row) in front else "",
            legend="front: no method of its machine is as good for less processor time (on a GPU, time) of training "
            "and test",
            left=True,
        ),
    )


def metric_column(name: str, metric: Declaration, ranks: bool) -> Column:
    """Return the column of a metric; that of the metric that ranks also shows which methods failed."""

    def text(row: Row) -> str:
        if row.primary is None:
            return row.records[0].status if ranks else ""
        found = metric_of(row, name)
        return "" if found is None else shown(metric, *found)

    def value(row: Row) -> float | None:
        found = metric_of(row, name)
        return found and found[0]

    interval = " ± half its 95 % interval over episodes (Student t)" if ranks else " ± half its 95 % interval"
    return Column(metric.heading, text, value, f"{metric.title}: {metric.summary}{interval}", optional=not ranks)
