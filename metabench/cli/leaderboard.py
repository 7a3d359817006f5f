"""`metabench leaderboard`: print the tables of earlier runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metabench.cli.streams import output_encoding, say, terminal_width
from metabench.filters import split_list

if TYPE_CHECKING:
    from metabench.analysis.tables import Table
    from metabench.records.runs import Runs

FORMATS = ["table", "markdown", "latex", "html", "csv", "json"]
LAYOUTS = ["long", "methods-by-shots"]
SORTS = "a metric, or alone, validation, algorithm, throughput, training, latency, memory or flops"


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIRECTORY...")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="long",
    show_default=True,
    help="One table a shot with all columns, or one with a row a method and a column a shot, as papers print it.",
)
@click.option("--across-datasets", is_flag=True, help="Rank the methods once over all datasets.")
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Show these cells, e.g. algorithm=maml,protonet.")
@click.option("--sort", metavar="KEY", help=f"Sort by {SORTS} [default: the metric that ranks].")
@click.option("--rank-by", metavar="METRIC", help="Rank and compare by this metric, e.g. nll_calibrated.")
@click.option(
    "--metrics",
    metavar="A,B",
    help="Show these metrics beside the one that ranks, e.g. nll,ece_calibrated, or none [default: all that fit].",
)
@click.option(
    "--columns",
    metavar="A,B",
    help='Show these columns in this order, by their titles without %, e.g. "rank,algorithm,accuracy,vs best,p".',
)
def leaderboard(
    directories: Sequence[Path],
    style: str,
    layout: str,
    across_datasets: bool,
    only: Sequence[str],
    sort: str | None,
    rank_by: str | None,
    metrics: str | None,
    columns: str | None,
) -> int:
    """Print one leaderboard of the runs in the DIRECTORIES.

    CSV and JSON show all metrics. LaTeX shows the metrics that --metrics names.

    The exit code is 1 where the results of a cell are wrong; the other cells are shown.
    """
    from metabench.analysis.standings import make_tables, ranked_by
    from metabench.filters import parse_filters
    from metabench.records.runs import Runs
    from metabench.registry.manager import PluginManager
    from metabench.reporting.sorting import sort_tables

    by_shots = layout == "methods-by-shots"
    _check_options(style, by_shots, across_datasets, sort, metrics, columns)
    published = PluginManager.from_environment().published_results()
    with garbage_kept():
        runs = Runs.read(directories, parse_filters(only))
        records = ranked_by(runs.records, rank_by) if rank_by else runs.records
        tables = sort_tables(make_tables(records, runs, published), sort)
        if across_datasets:
            text = _across(tables, style)
        elif by_shots:
            text = _by_shots(tables, style)
        else:
            text = _long(tables, style, metrics, columns)
    say(text, end="")
    return name_invalid(runs)


def _check_options(
    style: str, by_shots: bool, across: bool, sort: str | None, metrics: str | None, columns: str | None
) -> None:
    """Refuse options that mean nothing together.

    Raises:
        click.UsageError: two options exclude one another.
    """
    if across and by_shots:
        raise click.UsageError("--across-datasets is a table of its own: leave out --layout")
    table = "--across-datasets" if across else "--layout methods-by-shots" if by_shots else ""
    for name, value in {"--sort": sort, "--metrics": metrics, "--columns": columns}.items():
        if table and value is not None:
            raise click.UsageError(f"{name} is of the long table: leave it out, or {table}")
    if by_shots and style in ("csv", "json"):
        raise click.UsageError(f"--format {style} has a row for each cell: leave out --layout")
    if columns is not None and style in ("csv", "json"):
        raise click.UsageError(f"--format {style} has all columns: leave out --columns")
    if columns is not None and metrics is not None:
        raise click.UsageError("--columns names the metrics to show, too: leave out --metrics")


def _long(tables: Sequence[Table], style: str, metrics: str | None, columns: str | None) -> str:
    from metabench.reporting import rendering
    from metabench.reporting.figures import check_metrics
    from metabench.reporting.leaderboard import chosen_columns

    shown = None if metrics is None else [name for name in metrics.split(",") if name not in ("", "none")]
    check_metrics(tables, shown or [])
    chosen = None if columns is None else chosen_columns(tables, split_list(columns))
    render = {
        "table": lambda: rendering.render_text(tables, terminal_width(), output_encoding(), shown, chosen),
        "markdown": lambda: rendering.render_markdown(tables, shown, chosen),
        "latex": lambda: rendering.render_latex(tables, shown or [], chosen),
        "html": lambda: rendering.render_html(tables, shown, chosen),
        "csv": lambda: rendering.render_csv(tables),
        "json": lambda: rendering.render_json(tables),
    }
    return render[style]()


def _by_shots(tables: Sequence[Table], style: str) -> str:
    from metabench.reporting.methods_by_shots import methods_by_shots
    from metabench.reporting.sheets import render_sheets

    return render_sheets(methods_by_shots(tables), style, output_encoding())


def _across(tables: Sequence[Table], style: str) -> str:
    from metabench.analysis.across import rank_across
    from metabench.reporting.across import ranking_csv, ranking_json, ranking_sheet
    from metabench.reporting.sheets import render_sheets

    ranking = rank_across(tables)
    if style == "csv":
        return ranking_csv(ranking)
    if style == "json":
        return ranking_json(ranking)
    return render_sheets([ranking_sheet(ranking)], style, output_encoding())


def name_invalid(runs: Runs) -> int:
    """Name the cells with wrong results on standard error; return the exit code."""
    for record in runs.invalid:
        say(f"metabench: {record.error}", err=True)
    return 1 if runs.invalid else 0


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Collect no garbage: with 10 000 records, which stay alive, that takes a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
