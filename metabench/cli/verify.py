"""`metabench verify`: whether the figures of a run hold."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from metabench.cli.streams import output_encoding, say

if TYPE_CHECKING:  # imports torch
    from metabench.engine.progress import Watcher


@click.command()
@click.argument("run")
@click.option(
    "--cells",
    "part",
    default="10%",
    show_default=True,
    metavar="N|P%|all",
    help="Number or share of the cells to test again, drawn at random; of a share, at least one.",
)
@click.option("--seed", type=click.IntRange(0), help="Seed of the draw [default: random].")
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Verify these cells, e.g. algorithm=maml,protonet.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to test; auto is the kind of device of the record, where it is here.",
)
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def verify(run: str, part: str, seed: int | None, only: Sequence[str], device: str, style: str) -> int:
    """Say whether the figures of RUN hold, and write nothing into it.

    RUN is an output directory, an archive of one, or REVISION:PATH in git. The files of all cells are compared:
    records, per-episode results, kept outputs, weights and tables. A random part of the cells is tested again, with the
    kept weights on the same episodes: on the same kind of machine, figures must be the same to the digit, else within
    rounding.

    The exit code is 1 where anything contradicts, or not every drawn cell could be shown to hold.
    """
    from metabench.cli.progress import ProgressLine, terminal_bars
    from metabench.cli.sources import opened
    from metabench.contracts import Interrupted
    from metabench.filters import parse_filters
    from metabench.text import encodable
    from metabench.verification.drawing import parse_part
    from metabench.verification.verification_text import verification_json, verification_text
    from metabench.verification.verifying import Request, verify

    drawn, filters = parse_part(part), parse_filters(only)
    seed = secrets.randbelow(10**6) if seed is None else seed
    with opened(run) as directory, terminal_bars() as bars:
        lines: list[ProgressLine] = []

        def started(title: str) -> Watcher:
            for line in lines:
                line.end()
            lines[:] = [ProgressLine(title, bars, patience=2.0, interval=5.0)]
            return lines[0]

        try:
            found = verify(Request(directory, run, filters, drawn, seed, device), started)
        except Interrupted:
            raise KeyboardInterrupt from None
    text = verification_json(found) if style == "json" else verification_text(found)
    say(encodable(text, output_encoding()), end="")
    return 0 if found.passed else 1
