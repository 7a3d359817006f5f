"""`metabench merge`: join the shards of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from metabench.cli.streams import say
from metabench.text import counted


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="New directory for the results.")
def merge(runs: Sequence[Path], output: Path) -> None:
    """Join the output directories RUN... of one suite (`metabench run --shard`) in a new one; print its leaderboard.

    Weights, checkpoints, kept outputs, tracebacks and looks at the test go along. Of a cell that several have, results
    must agree to the digit.
    """
    from metabench.cli.progress import pack_progress
    from metabench.cli.run import write_leaderboard
    from metabench.records import merging
    from metabench.registry.manager import PluginManager

    with pack_progress() as progress:
        store = merging.merge(runs, output, lambda done, total: progress(done, total, "merge"))
    records = store.records()
    if records:
        say(f"\n{write_leaderboard(store, records, PluginManager.from_environment())}")
    known, planned = {record.cell for record in records}, {cell["cell"] for cell in store.planned()}
    missing = len(planned - known)
    say(f"Written to {output}: {counted(len(records), 'cell')} of {counted(len(runs), 'run')}")
    if missing:
        say(f"{counted(missing, 'cell')} of the suite are missing: `metabench run` with this --output runs them")
