"""`metabench score`: compute metrics of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from metabench.cli.streams import say


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="Compute this metric [default: all that are missing]."
)
def score(directory: Path, metrics: Sequence[str]) -> None:
    """Compute metrics of the run in DIRECTORY from its kept outputs.

    The command computes metrics of metabench and of installed plugins, and adds
    them to the records. Nothing is trained or tested.
    """
    from metabench.cli.progress import ProgressLine, terminal_bars
    from metabench.errors import PluginError, StoreError
    from metabench.executors.forks import start_is_cheap
    from metabench.executors.processes import Died, run_job
    from metabench.executors.scoring import Scoring, summary, write_scores
    from metabench.records.store import Store

    if not directory.is_dir():
        raise StoreError(f"no directory {directory}: give the --output of an earlier `metabench run`")
    store, job = Store(directory), Scoring(directory, tuple(metrics))
    with store.locked(), terminal_bars() as bars:
        line = ProgressLine(f"score {directory}", bars, patience=2.0, interval=5.0)
        try:
            scored = run_job(job, 1, line) if start_is_cheap() else next(job.run(line))
        finally:
            line.end()
        if isinstance(scored, Died):
            raise PluginError(f"no metric was computed: {scored.problem}")
        write_scores(store, scored)
    for text in summary(scored) or ["every record has every metric; --metric NAME computes one again"]:
        say(text)
