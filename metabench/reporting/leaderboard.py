"""Columns, legend, remarks and sorting of the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
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
    unlike_circumstances,
    validation,
    wall_seconds,
)
from metabench.analysis.metrics import OF_TASK
from metabench.analysis.paired import PairedDifference
from metabench.analysis.standings import Row, Table, common_episodes
from metabench.errors import UsageError, nearest
from metabench.records.record import Declaration, Record
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


def _trials(row: Row) -> int | None:
    """Return the number of trials by which a method's parameters were found; None where no suite says."""
    return next((record.trials for record in row.records if record.trials is not None), None)


def _half(row: Row, value: float | None) -> str:
    return "" if value is None else f"± {rounded(row.metric, value, value)}"


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


def validation_of(row: Row) -> float | None:
    """Return the validation of the tested weights, mean over the seeds."""
    return mean_over_seeds(row, validation)


def validated_by(row: Row) -> Declaration:
    """Return the declaration of the metric of the validation: the one that ranks by default."""
    return OF_TASK[row.records[0].task][0].declaration


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
_FIRST = (
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
_COMPARISONS = (
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
        lambda row: "" if (trials := _trials(row)) is None else str(trials),
        _trials,
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
_VALIDATION = Column(
    "val %",
    _validation_text,
    validation_of,
    "val: validation accuracy of the tested weights; choose methods and parameters by it, not by the test accuracy",
    optional=True,
)
#: The same of regressions, whose unit is not %.
_VALIDATION_OF_NUMBERS = replace(
    _VALIDATION,
    title="val",
    legend="val: the metric that ranks, in validation of the tested weights; choose methods and parameters by it",
)
_COSTS = (
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
_ON_DEMAND = (
    _cost("CPU s", cpu_seconds, "CPU s: processor seconds of training and test, of all threads"),
    _cost("wall s", wall_seconds, "wall s: seconds of training and test"),
    _cost(
        "J",
        joules,
        "J: joules of training and test as the GPU (NVML) or the processor packages (RAPL) report them, those of other "
        "programs in that time included; – where they do not",
    ),
)


def _of_tables(tables: Sequence[Table]) -> tuple[Column, Column]:
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


def metric_of(row: Row, name: str) -> tuple[float, float] | None:
    """Return value and half the interval of a metric; None where the row lacks it."""
    if row.primary and row.finished[0].ranked_by == name:
        return row.primary.mean, row.primary.ci95
    return row.metrics.get(name)


def metrics_of(tables: Sequence[Table]) -> dict[str, Declaration]:
    """Return the declarations of all metrics of the tables, those that rank first."""
    records = [record for table in tables for row in table.rows for record in row.finished]
    first = {record.ranked_by: record.ranking for record in records}
    return {
        **first,
        **{name: of for record in records for name, of in record.declarations.items() if name not in first},
    }


def check_metrics(tables: Sequence[Table], names: Iterable[str], further: Iterable[str] = ()) -> None:
    """Check that a record has each metric.

    Args:
        tables: the tables.
        names: the names of the metrics.
        further: other accepted names, for the message.

    Raises:
        UsageError: a name is unknown.
    """
    known = [*metrics_of(tables), *further]
    for name in names:
        if name not in known:
            raise UsageError(f"no record has '{name}'{nearest(name, known)}. Known: {', '.join(known)}")


def rounded(metric: Declaration, value: float, ci95: float) -> str:
    """Return a value of a metric, scaled: percentages to two decimals, others to two digits of their interval."""
    if metric.unit == "%":
        return f"{value * metric.scale:.2f}"
    half = ci95 * metric.scale
    decimals = 3 if not 0 < half < math.inf else min(6, max(0, 1 - math.floor(math.log10(half))))
    return f"{value * metric.scale:.{decimals}f}"


def shown(metric: Declaration, value: float, ci95: float | None) -> str:
    """Return a value with half its interval, e.g. ``"81.20 ± 0.63"``."""
    if ci95 is None:
        return rounded(metric, value, 0.0)
    return f"{rounded(metric, value, ci95)} ± {rounded(metric, ci95, ci95)}"


def shown_difference(metric: Declaration, difference: float, ci95: float) -> str:
    """Return a difference with its sign, e.g. ``"−1.20 ± 0.63"``."""
    sign = "−" if rounded(metric, difference, ci95).startswith("-") else "+"
    return f"{sign}{shown(metric, difference, ci95).removeprefix('-')}"


def _metric_column(name: str, metric: Declaration, ranks: bool) -> Column:
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
    columns = [*_columns(tables, None, costs=True), *_ON_DEMAND, *_of_tables(tables)]
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
    columns = [_metric_column(name, metric, name in ranking) for name, metric in known.items()]
    first = [column for column, name in zip(columns, known, strict=True) if name in ranking]
    further = [
        column
        for column, name in zip(columns, known, strict=True)
        if name not in ranking and (metrics is None or name in metrics)
    ]
    tasks = {row.records[0].task for row in rows}
    if not first:  # no cell is ok: the column of the metric that would rank names the others' status
        measure = OF_TASK["regression" if tasks == {"regression"} else "classification"][0]
        first = [_metric_column(measure.name, measure.declaration, ranks=True)]
    validation = _VALIDATION_OF_NUMBERS if "regression" in tasks else _VALIDATION
    comparisons = [_about(column, rows) for column in _COMPARISONS]
    comparisons = [_without_percent(column) for column in comparisons] if "regression" in tasks else comparisons
    ordered = [*_FIRST, *first, *comparisons, *([validation] if costs else []), *further, *(_COSTS if costs else [])]
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


def remarks(table: Table, failures: bool = True) -> list[str]:
    """Return the remarks on a table: cells without results, other test episodes, ties, oddities of the data.

    Args:
        table: the table.
        failures: whether the reasons of failed, skipped and invalid cells are among them.
    """
    failed = _failures(table) if failures else []
    return [
        *failed,
        *_of_records(table),
        *_other_episodes(table),
        *_of_weights(table),
        *_confirmed_often(table),
        *_unequal_trials(table),
        *_ties(table),
        *_unlike_times(table),
        *_data(table),
    ]


def _unlike_times(table: Table) -> list[str]:
    """Return a mark where the times of a table cannot be compared."""
    timed = [record for row in table.rows for record in row.finished if record.eval]
    reasons = unlike_circumstances(timed)
    return [f"times, rates and energies are not comparable within this table: other {', other '.join(reasons)}"] * bool(
        reasons
    )


def _data(table: Table) -> list[str]:
    """Return each remark on the data once, whatever the number of methods."""
    data = [record.data for row in table.rows for record in row.records if record.data]
    return list(dict.fromkeys(f"{table.dataset}: {remark}" for part in data for remark in part.remarks))


def _named(table: Table) -> list[tuple[str, Record]]:
    """Return the records of a table, each with the name of its method, and its seed where there are several."""
    return [
        (
            row.name
            + (f" (seed {record.seed})" if len(row.records) > 1 else "")
            + (" on the confirming episodes" if record.confirms else ""),
            record,
        )
        for row in table.rows
        for record in (*row.records, *row.confirmations)
    ]


def _failures(table: Table) -> list[str]:
    """Return the reasons of cells that are not ok."""
    return [
        f"{name} {'failed' if record.status == 'failed' else f'is {record.status}'}: {record.error}"
        for name, record in _named(table)
        if record.status != "ok"
    ]


def _of_records(table: Table) -> list[str]:
    """Return each remark of the records once, with the methods that have it."""
    lines: list[str] = []
    methods: dict[str, list[str]] = {}
    for name, record in _named(table):
        for remark in record.remarks:
            methods.setdefault(remark, []).append(name)
    finished = sum(record.status == "ok" for row in table.rows for record in (*row.records, *row.confirmations))
    for remark, names in methods.items():
        everyone = len(names) == finished > 1
        lines.append(f"{'all methods' if everyone else ', '.join(names)}: {remark}")
    return lines


def _other_episodes(table: Table) -> list[str]:
    unranked = [row for row in table.rows if row.primary and row.rank is None]
    floors = [row.name for row in unranked if row.floor]
    names = [row.name for row in unranked if not row.floor]
    lines = [f"floors, neither ranked nor compared: {', '.join(floors)}"] if floors else []
    lines += [f"tested on other episodes, so neither ranked nor compared: {', '.join(names)}"] if names else []
    ranked = [row for row in table.rows if row.rank is not None and row.values is not None]
    common = common_episodes(ranked)
    if any(row.values is not None and len(row.values) > common for row in ranked):
        lines.append(f"ranked and compared on the first {common:,} episodes, which all of them have")
    return lines


def _of_weights(table: Table) -> list[str]:
    """Return the methods without a claim, in a table where others have one, and why methods have none."""
    compared = [row for row in table.rows if row.rank is not None]
    lines = []
    failed = [f"{row.name} ({len(row.finished)} of {len(row.records)} seeds)" for row in compared if _lacks_seeds(row)]
    if failed:
        lines.append(f"seeds have failed, so that the mean is of the others, and no claim: {', '.join(failed)}")
    others = [row for row in compared if row.versus_best]
    of_weights = [row.name for row in others if row.versus_best and not row.versus_best.about_methods]
    if 0 < len(of_weights) < len(others):
        lines.append(f"compared with the best as these weights, not as methods: {', '.join(of_weights)}")
    return lines


def _confirmed_often(table: Table) -> list[str]:
    """Return the methods whose confirming episodes were looked at more than once."""
    looks = {row.name: max((record.looks or 0 for record in row.confirmations), default=0) for row in table.rows}
    names = [f"{name} ({count} times)" for name, count in looks.items() if count > 1]
    advice = "a confirmation is of one choice that was made before, e.g. by --only"
    return [f"the confirming episodes were looked at several times: {', '.join(names)}; {advice}"] if names else []


def _unequal_trials(table: Table) -> list[str]:
    """Return a remark where methods were tuned with unequal effort; one without anything to search is left out."""
    trials = {row.name: _trials(row) for row in table.rows if not row.floor}
    searched = {name: count for name, count in trials.items() if count != 0}
    if len(set(searched.values())) < 2:
        return []
    names = ", ".join(f"{name} {'not tuned' if count is None else count}" for name, count in searched.items())
    return [f"tuned with unequal numbers of trials, so not compared with equal effort: {names}"]


def _lacks_seeds(row: Row) -> bool:
    return len(row.finished) < len(row.records)


def _ties(table: Table) -> list[str]:
    return [
        f"{row.name} ties with the best; if the difference is as measured, {needed} would show it in four of five runs"
        for row in table.rows
        if row.tie and row.versus_best and (needed := _needed(row.versus_best))
    ]


def _needed(versus: PairedDifference) -> str:
    """Return the episodes or seeds that would settle a tie; empty where the difference is 0."""
    if versus.settled_by:
        return f"{versus.settled_by:,} episodes" if versus.settled_by < 1_000_000 else "more than a million episodes"
    if versus.settled_by_seeds:
        return f"{versus.settled_by_seeds:,} training seeds"
    return ""


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
    return [f"{short}: {name}" for short, name in sorted({(device(one), one.device) for one in _records(tables)})]


def origins(tables: Sequence[Table]) -> list[str]:
    """Return a line for each version of a suite, and for the licence of each dataset."""
    versions = sorted({(one.suite, one.suite_version) for one in _records(tables) if one.suite_version})
    licences = sorted({(one.dataset, one.data.licence) for one in _records(tables) if one.data})
    return [
        *(f"suite: {name}, v{version}" for name, version in versions),
        *(f"licence of {name}: {licence or 'unknown'}" for name, licence in licences),
    ]


def _records(tables: Sequence[Table]) -> list[Record]:
    return [record for table in tables for row in table.rows for record in row.records]
