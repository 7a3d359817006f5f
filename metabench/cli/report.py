"""`metabench report`: write one HTML page about earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIRECTORY...")
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Report these cells, e.g. algorithm=maml,protonet.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="File to write; default: report.html in the first DIRECTORY."
)
def report(directories: Sequence[Path], only: Sequence[str], output: Path | None) -> None:
    """Write a self-contained HTML page about the runs in DIRECTORIES."""
    from metabench.errors import StoreError
    from metabench.files import atomic_file
    from metabench.filters import parse_filters
    from metabench.records.runs import Runs
    from metabench.registry.manager import PluginManager
    from metabench.reporting.report.page import render_page

    published = PluginManager.from_environment().published_results()
    page = render_page(Runs.read(directories, parse_filters(only)), published)
    path = output or directories[0] / "report.html"
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"cannot write the report {path}: {error.strerror}. Name another file with --output"
        ) from error
    click.echo(f"Written to {path}")
