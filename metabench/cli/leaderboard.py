"""`metabench leaderboard`: print the tables of earlier runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metabench.cli.streams import output_encoding, say, terminal_width

if TYPE_CHECKING:
    from metabench.records.runs import Runs

FORMATS = ["table", "markdown", "latex", "html", "csv", "json"]
SORTS = "a metric, or alone, validation, algorithm, throughput, training, latency, memory or flops"


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIRECTORY...")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Show these cells, e.g. algorithm=maml,protonet.")
@click.option("--sort", metavar="KEY", help=f"Sort by {SORTS} [default: the metric that ranks].")
@click.option("--rank-by", metavar="METRIC", help="Rank and compare by this metric, e.g. nll_calibrated.")
@click.option(
    "--metrics",
    metavar="A,B",
    help="Show these metrics beside the one that ranks, e.g. nll,ece_calibrated, or none [default: all that fit].",
)
def leaderboard(
    directories: Sequence[Path],
    style: str,
    only: Sequence[str],
    sort: str | None,
    rank_by: str | None,
    metrics: str | None,
) -> int:
    """Print one leaderboard of the runs in the DIRECTORIES.

    CSV and JSON show all metrics. LaTeX shows the metrics that --metrics names.

    The exit code is 1 where the results of a cell are wrong; the other cells are shown.
    """
    from metabench.analysis.standings import make_tables, ranked_by
    from metabench.filters import parse_filters
    from metabench.records.runs import Runs
    from metabench.registry.manager import PluginManager
    from metabench.reporting import rendering
    from metabench.reporting.leaderboard import check_metrics, sort_tables

    published = PluginManager.from_environment().published_results()
    with garbage_kept():
        runs = Runs.read(directories, parse_filters(only))
        records = ranked_by(runs.records, rank_by) if rank_by else runs.records
        tables = sort_tables(make_tables(records, runs, published), sort)
        shown = None if metrics is None else [name for name in metrics.split(",") if name not in ("", "none")]
        check_metrics(tables, shown or [])
        render = {
            "table": lambda: rendering.render_text(tables, terminal_width(), output_encoding(), shown),
            "markdown": lambda: rendering.render_markdown(tables, shown),
            "latex": lambda: rendering.render_latex(tables, shown or []),
            "html": lambda: rendering.render_html(tables, shown),
            "csv": lambda: rendering.render_csv(tables),
            "json": lambda: rendering.render_json(tables),
        }
        text = render[style]()
    say(text, end="")
    return name_invalid(runs)


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
