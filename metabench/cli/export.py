"""`metabench export`: the trained backbone of a cell, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from metabench.cli.cells import choosing_cell, chosen_cell, learner_of
from metabench.cli.streams import say


@click.command()
@choosing_cell
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="FILE.pt2 for torch.export, FILE.onnx for ONNX.",
)
def export(run: Path, cell: str | None, only: Sequence[str], output: Path) -> None:
    """Export the trained backbone of a cell of RUN.

    The file maps [n, C, H, W] pixels between 0 and 1, any number of images, to [n, D] features;
    mean and std are inside. The features of file and network are compared before the file is written.
    ONNX needs the extra `onnx`.
    """
    from metabench.learners.exported import check_target, export_backbone

    check_target(output)
    record = chosen_cell(run, cell, only)
    learner = learner_of(run, record, "cpu")
    done = export_backbone(learner, record, output)
    shape = ", ".join(map(str, learner.image_shape))
    say(f"{output}: {record.backbone} of {record.algorithm}, [n, {shape}] → [n, {done.features}]")
    say(f"its features differ from the network's by {done.difference:.1e} of the largest one, on {done.images} images")
    for line in done.remarks:
        say(line)
