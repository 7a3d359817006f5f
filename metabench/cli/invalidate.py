"""`metabench invalidate`: mark results that were found to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from metabench.cli.streams import say


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--cell", "cells", multiple=True, required=True, metavar="ID", help="Id of a cell; may be given again.")
@click.option("--by", metavar="NAME", help="Who has found it.")
@click.option("--because", metavar="REASON", help="What is wrong, in a sentence.")
@click.option("--undo", is_flag=True, help="Take the mark away.")
def invalidate(directory: Path, cells: Sequence[str], by: str | None, because: str | None, undo: bool) -> None:
    """Mark records of a run as invalid, by whom and why.

    Tables, reports and the gate name them with the reason, and neither rank nor compare them; `metabench run` makes
    them anew. The results stay in their files.
    """
    from datetime import datetime, timezone

    from metabench.errors import StoreError, UsageError, nearest
    from metabench.records.record import Invalidation
    from metabench.records.store import Store

    if undo == bool(by or because) or (not undo and not (by and because)):
        raise UsageError("give --by and --because, or --undo alone")
    store = Store(directory)
    known = store.records_by_name()
    if not known:
        raise StoreError(f"no finished cells in {directory}: give the --output of an earlier `metabench run`")
    for cell in cells:
        if cell not in known:
            hint = nearest(cell, known) or ": `metabench leaderboard --format csv` names the cells"
            raise UsageError(f"{directory} has no cell '{cell}'{hint}")
        if undo and known[cell].invalidated is None:
            raise UsageError(f"{cell} is not marked")
    today = f"{datetime.now(timezone.utc):%Y-%m-%d}"
    mark = Invalidation(by=by, because=because, on=today) if by and because else None
    with store.locked():
        for cell in cells:
            store.mark(cell, mark)
            record = known[cell]
            title = f"{record.algorithm} · {record.dataset} · {record.backbone} · seed {record.seed}"
            say(f"{cell}  {title}: {'no longer marked' if mark is None else mark}")
