"""Leaderboards as text, Markdown, LaTeX, HTML, CSV and JSON."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from metabench.analysis.costs import cpu_seconds, joules, wall_seconds
from metabench.analysis.tables import Row, Table
from metabench.records.record import Record
from metabench.reporting.columns import Column
from metabench.reporting.figures import metrics_of
from metabench.reporting.json_text import to_json
from metabench.reporting.leaderboard import chance_texts, legend, parameter_names, shown_columns
from metabench.reporting.markup import escape_latex, escape_markdown, latex_label
from metabench.reporting.remarks import devices, origins, remarks, sources
from metabench.text import encodable, one_line, value_text

#: Number of columns that are shown however narrow the terminal is: rank, algorithm and the metric that ranks.
_ALWAYS = 3

if TYPE_CHECKING:
    import pandas as pd  # imported only for CSV


def render_text(
    tables: Sequence[Table],
    width: int | None = None,
    encoding: str = "utf-8",
    metrics: Collection[str] | None = None,
    columns: Sequence[Column] | None = None,
) -> str:
    """Return the leaderboard as text for a terminal.

    Args:
        tables: the tables.
        width: width of the terminal in characters; None shows all columns, and `columns` are all shown.
        encoding: the terminal's encoding; other characters are replaced, and columns stay aligned.
        metrics: names of the metrics to show beside those that rank; None shows all.
        columns: the columns (`metabench.reporting.leaderboard.chosen_columns`); None shows those that say something.
    """
    parts = []
    width = width if columns is None else None
    columns = columns or shown_columns(tables, metrics)
    shown: set[str] = set()
    for table in tables:
        text, fitting = _fitting_table(table, columns, width, encoding)
        shown.update(column.title for column in fitting)
        parts.append("\n".join([table.title, text, *(f"\n{line}" for line in remarks(table))]))
    notes = legend([column for column in columns if column.title in shown]) + devices(tables) + origins(tables)
    left_out = [column.title for column in columns if column.title not in shown]
    if left_out:
        notes.append(f"left out of a narrow terminal: {', '.join(left_out)} (see --format csv)")
    return encodable("\n\n".join([*parts, "\n".join(notes)]) + "\n", encoding)


def render_markdown(
    tables: Sequence[Table], metrics: Collection[str] | None = None, columns: Sequence[Column] | None = None
) -> str:
    """Return the leaderboard as Markdown; `metrics` and `columns` as in `render_text`."""
    columns = columns or shown_columns(tables, metrics)
    parts = []
    for table in tables:
        text = _tabulated(table, columns, "github", escape=escape_markdown, titles=_markdown_title)
        lines = "".join(f"\n\n{escape_markdown(line)}" for line in remarks(table))
        parts.append(f"### {escape_markdown(table.title)}\n\n{text}{lines}")
    notes = [*legend(columns), *devices(tables), *origins(tables), *_sources(tables, columns)]
    return "\n\n".join([*parts, "\n".join(f"- {escape_markdown(note)}" for note in notes)]) + "\n"


def render_latex(
    tables: Sequence[Table], metrics: Collection[str] = (), columns: Sequence[Column] | None = None
) -> str:
    """Return the leaderboard as LaTeX tables, which need ``\\usepackage{booktabs}``.

    Args:
        tables: the tables.
        metrics: names of the metrics to show beside those that rank: a page has no room for all.
        columns: as in `render_text`; None leaves out costs, too.
    """
    columns = columns or shown_columns(tables, metrics, costs=False)
    parts = ["% \\usepackage{booktabs}"]
    for table in tables:
        caption = escape_latex(table.title)
        text = _tabulated(table, columns, "latex_raw", escape=escape_latex, titles=escape_latex)
        for rule in ("toprule", "midrule", "bottomrule"):
            text = text.replace(r"\hline", f"\\{rule}", 1)
        lines = [escape_latex(line) for line in [*remarks(table), *_sources([table], columns)]]
        below = "".join(f"\n\\par\\footnotesize {line}" for line in lines)
        label = latex_label(table.dataset, table.shape, table.backbone)
        head = f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{{label}}}\n\\medskip"
        parts.append(f"{head}\n{text}{below}\n\\end{{table}}")
    notes = [*legend(columns), *devices(tables), *origins(tables)]
    return "\n\n".join([*parts, "\n".join(f"% {one_line(note)}" for note in notes)]) + "\n"


def render_html(
    tables: Sequence[Table], metrics: Collection[str] | None = None, columns: Sequence[Column] | None = None
) -> str:
    """Return the leaderboard as a fragment of HTML: headings, tables and a list; arguments as in `render_text`."""
    columns = columns or shown_columns(tables, metrics)
    parts = []
    for table in tables:
        text = tabulate(
            _lines(table, columns),
            headers=[column.title for column in columns],
            tablefmt="html",  # escapes the texts
            disable_numparse=True,
            colalign=_alignment(columns),
        )
        lines = "".join(f"\n<p>{html.escape(line)}</p>" for line in remarks(table))
        parts.append(f"<h3>{html.escape(table.title)}</h3>\n{text}{lines}")
    notes = [*legend(columns), *devices(tables), *origins(tables), *_sources(tables, columns)]
    items = "\n".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return "\n".join([*parts, f"<ul>\n{items}\n</ul>"]) + "\n"


def _sources(tables: Sequence[Table], columns: Sequence[Column]) -> list[str]:
    """Return the lines of published results, where a column shows them."""
    return sources(tables) if any(column.title.startswith("published") for column in columns) else []


def render_csv(tables: Sequence[Table]) -> str:
    """Return `frame` as CSV."""
    return frame(tables).to_csv(index=False, lineterminator="\n")


def render_json(tables: Sequence[Table]) -> str:
    """Return the records (docs/records.md) with their ranking, as a JSON list."""
    lines = [to_json({**record.model_dump(), **_ranking(row)}) for row, record in _rows_and_records(tables)]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def frame(tables: Sequence[Table]) -> pd.DataFrame:
    """Return unrounded metrics, one row per record, in the leaderboard's order."""
    import pandas as pd

    names, metrics = parameter_names(tables), metrics_of(tables)
    return pd.DataFrame([_csv_row(record, row, names, metrics) for row, record in _rows_and_records(tables)])


def _rows_and_records(tables: Sequence[Table]) -> list[tuple[Row, Record]]:
    return [(row, record) for table in tables for row in table.rows for record in row.records]


def _ranking(row: Row) -> dict[str, Any]:
    versus, published = row.versus_best, row.published
    return {
        "rank": row.rank,
        "tie": row.tie,
        "params": dict(row.params),
        "mean_over_seeds": row.primary and row.primary.mean,
        "seed_ci95": row.seed_ci95,
        "method_ci95": row.method_ci95,
        "versus_best": versus
        and {
            "difference": versus.difference,
            "ci95": versus.ci95,
            "data_ci95": versus.data_ci95,
            "p": versus.p,
            "p_holm": versus.p_holm,
            "about": "methods" if versus.about_methods else "weights",
            "settled_by": versus.settled_by,
            "settled_by_seeds": versus.settled_by_seeds,
        },
        "confirmed": row.confirmed and {"mean": row.confirmed.mean, "ci95": row.confirmed.ci95},
        "most_looks": row.looks,
        "published": published
        and {
            "accuracy": published.result.accuracy,
            "ci95": published.result.ci95,
            "source": published.result.source,
            "link": published.result.link,
            "differences": list(published.differences),
        },
    }


def _csv_row(record: Record, row: Row, parameters: Sequence[str], metrics: Iterable[str]) -> dict[str, Any]:
    primary, train, evaluation = record.primary, record.train, record.eval
    alone, versus, published = record.inductive_accuracy, row.versus_best, row.published
    circumstances = record.circumstances
    return {
        "dataset": record.dataset,
        "backbone": record.backbone,
        "way": record.way,
        "shot": record.shot,
        "queries": record.queries,
        "algorithm": record.algorithm,
        "seed": record.seed,
        "trained_on": record.trained_on or record.dataset,
        "pretrained_on": record.pretrained_on or None,
        "external": record.external or None,
        **{f"params.{name}": _csv_value(row.params.get(name)) for name in parameters},
        "profile": record.profile,
        "status": record.status,
        "rank": row.rank,
        "tie": row.tie,
        record.ranked_by: primary and primary.value,
        "ci95": primary and primary.ci95,
        "data_ci95": primary and primary.data_ci95,
        "std": primary and primary.std,
        "episodes": primary and primary.episodes,
        "mean_over_seeds": row.primary and row.primary.mean,
        "seed_ci95": row.seed_ci95,
        "method_ci95": row.method_ci95,
        "confirmed": row.confirmed and row.confirmed.mean,
        "confirmed_ci95": row.confirmed and row.confirmed.ci95,
        "looks": row.looks,
        "transductive": record.transductive,
        "inductive_accuracy": alone and alone.value,
        "inductive_ci95": alone and alone.ci95,
        "versus_best": versus and versus.difference,
        "versus_best_ci95": versus and versus.ci95,
        "versus_best_data_ci95": versus and versus.data_ci95,
        "versus_best_p_holm": versus and versus.p_holm,
        "versus_best_about": versus and ("methods" if versus.about_methods else "weights"),
        "versus_best_settled_by": versus and versus.settled_by,
        "versus_best_settled_by_seeds": versus and versus.settled_by_seeds,
        "published": published and published.result.accuracy,
        "published_source": published and published.result.source,
        "published_differences": published and "; ".join(published.differences),
        **_csv_metrics(record, metrics),
        "temperature": record.temperature and record.temperature.value,
        "validation": train and train.validation_value,
        "train_episodes": train and train.episodes,
        "train_seconds": train and train.seconds,
        "train_episodes_per_second": train and train.episodes_per_second,
        "eval_episodes_per_second": evaluation and evaluation.episodes_per_second,
        "latency_ms_p50": evaluation and evaluation.latency_ms.p50,
        "latency_ms_p95": evaluation and evaluation.latency_ms.p95,
        "adapt_ms_p50": evaluation and evaluation.adapt_ms and evaluation.adapt_ms.p50,
        "answer_ms_p50": evaluation and evaluation.answer_ms and evaluation.answer_ms.p50,
        "flops_per_episode": record.flops_per_episode,
        "peak_memory_bytes": record.peak_memory_bytes,
        "parameters": record.parameters,
        "all_parameters": record.all_parameters,
        "device": record.device,
        "cell": record.cell,
        "suite": record.suite,
        "suite_version": record.suite_version,
        "licence": record.data and (record.data.licence or None),
        "cpu_seconds": cpu_seconds(record),
        "wall_seconds": wall_seconds(record),
        "joules": joules(record),
        "host": circumstances and circumstances.host,
        "niceness": circumstances and circumstances.niceness,
        "load": circumstances and circumstances.busiest,
        "error": record.error,
    }


def _csv_metrics(record: Record, names: Iterable[str]) -> dict[str, float | None]:
    """Return values and intervals of the metrics, but for the one that ranks."""
    values: dict[str, float | None] = {}
    for name in names:
        if name != record.ranked_by:
            estimate = record.metrics.get(name)
            values[name] = estimate.value if estimate else None
            values[f"{name}_ci95"] = estimate.ci95 if estimate else None
    return values


def _csv_value(value: Any) -> float | str | None:
    """Return a parameter as a number or text."""
    return value if value is None or isinstance(value, (int, float)) else value_text(value)


def _alignment(columns: Sequence[Column]) -> list[str]:
    return ["left" if column.left else "right" for column in columns]


def _lines(table: Table, columns: Sequence[Column]) -> list[list[str]]:
    """Return the texts of a table: a line for each row, and that of chance."""
    chance = chance_texts(table, columns)
    return [*([column.text(row) for column in columns] for row in table.rows), *([chance] if chance else [])]


def _tabulated(
    table: Table,
    columns: Sequence[Column],
    style: str,
    escape: Callable[[str], str] = str,
    titles: Callable[[str], str] = str,
) -> str:
    return tabulate(
        [[escape(text) for text in line] for line in _lines(table, columns)],
        headers=[titles(column.title) for column in columns],
        tablefmt=style,
        disable_numparse=True,
        colalign=_alignment(columns),
    )


def _fitting_table(
    table: Table, columns: Sequence[Column], width: int | None, encoding: str
) -> tuple[str, list[Column]]:
    """Return the table's text with the columns that fit, and those columns."""
    fitting = list(columns)
    while True:
        lines = [
            line.rstrip()
            for line in _tabulated(table, fitting, "simple", partial(encodable, encoding=encoding)).splitlines()
        ]
        if width is None or len(fitting) <= _ALWAYS or max(map(len, lines)) <= width:
            return "\n".join(lines), fitting
        fitting.pop()


def _markdown_title(title: str) -> str:
    return title if title == "#" else escape_markdown(title)
