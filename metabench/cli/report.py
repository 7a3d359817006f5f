"""`metabench report`: write one HTML page about earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from metabench.cli.streams import say


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIRECTORY...")
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Report these cells, e.g. algorithm=maml,protonet.")
@click.option(
    "--interpret",
    is_flag=True,
    help="Show how each method sees a query; needs the kept weights and the data.",
)
@click.option(
    "--episode", type=click.IntRange(min=0), default=0, show_default=True, help="Test episode that --interpret shows."
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="File to write; default: report.html in the first DIRECTORY."
)
def report(directories: Sequence[Path], only: Sequence[str], interpret: bool, episode: int, output: Path | None) -> int:
    """Write a self-contained HTML page about the runs in DIRECTORIES.

    The exit code is 1 where the results of a cell are wrong; the other cells are shown.
    """
    from metabench.cli.interpreting import interpretations
    from metabench.cli.leaderboard import name_invalid
    from metabench.errors import StoreError
    from metabench.files import write_named
    from metabench.filters import parse_filters
    from metabench.records.runs import Runs
    from metabench.registry.manager import PluginManager
    from metabench.reporting.report.page import render_page

    published = PluginManager.from_environment().published_results()
    runs = Runs.read(directories, parse_filters(only))
    shown = interpretations(runs, episode) if interpret else []
    page = render_page(runs, published, shown)
    path = output or directories[0] / "report.html"
    try:
        write_named(path, page, mark="<title>metabench: ")
    except OSError as error:
        raise StoreError(
            f"cannot write the report {path}: {error.strerror}. Name another file with --output"
        ) from error
    say(f"Written to {path}")
    return name_invalid(runs)
