"""`metabench import`: results of other code as records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metabench.cli.episodes import choosing_episodes, chosen_episodes
from metabench.cli.streams import say
from metabench.errors import UsageError


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@choosing_episodes
@click.option("--method", help="Name of the method, of a file without a column 'method'.")
@click.option("--backbone", metavar="LABEL", help="Table of this backbone to stand in [default: the suite's only one].")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory for the records [default: runs/imported/NAME, by the name of FILE].",
)
def import_(file: Path, method: str | None, backbone: str | None, output: Path | None, **choice: Any) -> None:
    """Make records of the results in FILE, for the leaderboard.

    FILE is CSV: episode,accuracy (a share of 1), or episode,query,prediction (numbers from 0, as in the tensors, or
    the names CLASS/IMAGE and CLASS); method and seed are optional columns. DATASET or SUITE
    and the options say of which episodes, as in `metabench episodes export`.
    """
    from metabench.exchange.imported import import_results
    from metabench.records.store import Store

    if not file.is_file():
        raise UsageError(f"there is no file {file}: give the results of your code, as CSV")
    store = Store(output or Path("runs") / "imported" / file.stem)
    store.check_no_run()
    episodes, backbones = chosen_episodes("test", **choice)
    if backbone is None:
        if len(backbones) != 1:
            known = f": {', '.join(backbones)}" if backbones else ""
            raise UsageError(f"say by --backbone in which table the results stand{known}")
        backbone = backbones[0]
    imported = import_results(file, episodes, method, backbone)
    with store.locked():
        for record, results in imported:
            store.write(record, results)
    for record, _ in imported:
        assert record.primary is not None, "every imported record has an accuracy"
        count, mean = record.primary.episodes, 100 * record.primary.value
        say(f"{record.algorithm}, seed {record.seed}: {mean:.2f} % in {count} of {len(episodes)} episodes")
    say(f"Written to {store.path}. Compare with a run: metabench leaderboard RUN {store.path}")
