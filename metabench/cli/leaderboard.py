"""`metabench leaderboard`: the table of an earlier run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
)
def leaderboard(directory: Path, style: str) -> None:
    """Print the leaderboard of the run whose output is in DIRECTORY."""
    from metabench.errors import StoreError
    from metabench.leaderboard import ranked, render_csv, render_markdown, render_text
    from metabench.store import Store

    records = Store(directory).records()
    if not records:
        raise StoreError(f"no finished cells in {directory}: give the --output of an earlier `metabench run`")
    if style == "json":
        text = "[\n" + ",\n".join(record.model_dump_json() for record in ranked(records)) + "\n]\n"
    elif style == "csv":
        text = render_csv(records)
    elif style == "markdown":
        text = render_markdown(records)
    else:
        text = render_text(records, terminal_width())
    click.echo(text, nl=False)


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is, or None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
