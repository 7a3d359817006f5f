"""`metabench history`: show how results changed over a series of runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metabench.cli.streams import output_encoding, say

if TYPE_CHECKING:
    from metabench.records.runs import Runs

ORDERS = ["given", "finished"]


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="RUN...")
@click.option("--order", type=click.Choice(ORDERS), default="given", show_default=True, help="Order of the runs.")
@click.option("--pinned", metavar="RUN", help="One of RUN... to compare all others with [default: the first].")
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Show these cells, e.g. algorithm=maml,protonet.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write a page with plots to this HTML file, too.")
def history(
    sources: Sequence[str], order: str, pinned: str | None, only: Sequence[str], style: str, output: Path | None
) -> None:
    """Show the steps in a series of runs, cell by cell, on identical episodes.

    Each RUN is an output directory, an archive of one, or REVISION:PATH in git, as for `metabench compare`. Each is
    compared with the one before, and with the pinned one, where small losses add up.
    """
    from metabench.analysis.history import make_history
    from metabench.cli.sources import opened
    from metabench.errors import StoreError, UsageError, nearest
    from metabench.files import write_named
    from metabench.filters import parse_filters
    from metabench.records.runs import Runs
    from metabench.reporting import history as rendered

    if pinned is not None and pinned not in sources:
        raise UsageError(f"--pinned {pinned} is none of the runs{nearest(pinned, sources)}")
    if len(set(sources)) < len(sources):
        raise UsageError("a run is given twice")
    with ExitStack() as stack:
        runs = {name: Runs.read([stack.enter_context(opened(name))], parse_filters(only)) for name in sources}
        names = sorted(runs, key=lambda name: _finished(runs[name])) if order == "finished" else list(runs)
        first = names[0] if pinned is None else pinned
        found = make_history([runs[name] for name in names], _short(names), names.index(first))
        say(rendered.render_json(found) if style == "json" else rendered.render_text(found, output_encoding()), end="")
        if output is not None:
            try:
                write_named(output, rendered.render_page(found), mark=rendered.MARK)
            except OSError as error:
                raise StoreError(f"cannot write {output}: {error.strerror}. Name another file") from error
            say(f"Written to {output}", err=True)


def _finished(runs: Runs) -> str:
    """Return when the last cell of a run ended."""
    return max(record.finished for record in runs.records)


def _short(names: Sequence[str]) -> list[str]:
    """Return the last parts of the names where they tell the runs apart; else the names."""
    last = [Path(name).name if ":" not in name else name.split(":")[0] for name in names]
    return last if len(set(last)) == len(last) and all(last) else list(names)
