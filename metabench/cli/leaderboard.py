"""`metabench leaderboard`: print the tables of earlier runs."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metabench.cli.streams import output_encoding, say

if TYPE_CHECKING:
    from metabench.records.runs import Runs

FORMATS = ["table", "markdown", "latex", "html", "csv", "json"]
SORTS = ["accuracy", "alone", "validation", "algorithm", "throughput", "training", "latency", "memory", "flops"]


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIRECTORY...")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Show these cells, e.g. algorithm=maml,protonet.")
@click.option("--sort", type=click.Choice(SORTS), default="accuracy", show_default=True)
def leaderboard(directories: Sequence[Path], style: str, only: Sequence[str], sort: str) -> int:
    """Print one leaderboard of the runs in the DIRECTORIES.

    The exit code is 1 where the results of a cell are wrong; the other cells are shown.
    """
    from metabench.analysis.standings import make_tables
    from metabench.filters import parse_filters
    from metabench.records.runs import Runs
    from metabench.registry.manager import PluginManager
    from metabench.reporting import rendering
    from metabench.reporting.leaderboard import sort_tables

    render = {
        "table": lambda tables: rendering.render_text(tables, terminal_width(), output_encoding()),
        "markdown": rendering.render_markdown,
        "latex": rendering.render_latex,
        "html": rendering.render_html,
        "csv": rendering.render_csv,
        "json": rendering.render_json,
    }
    published = PluginManager.from_environment().published_results()
    with garbage_kept():
        runs = Runs.read(directories, parse_filters(only))
        tables = sort_tables(make_tables(runs.records, runs, published), sort)
        text = render[style](tables)
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


def terminal_width() -> int | None:
    """Return the terminal's columns; None where stdout is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
