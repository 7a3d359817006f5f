"""`metabench predict`: the classes of one's own images, by a trained learner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from metabench.cli.cells import choosing_cell, chosen_cell, learner_of
from metabench.cli.streams import output_encoding, say

_PATH = click.Path(path_type=Path)


@click.command()
@choosing_cell
@click.option("--support", type=_PATH, required=True, metavar="DIR", help="A folder of images for each class.")
@click.option(
    "--query",
    type=_PATH,
    required=True,
    metavar="DIR",
    help="Images to ask about, in class folders or none; or one image.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--batch", type=click.IntRange(1), default=256, show_default=True, help="Most queries asked at once.")
@click.option("--format", "style", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--output", type=_PATH, metavar="FILE", help="File to write [default: standard output].")
def predict(
    run: Path,
    cell: str | None,
    only: Sequence[str],
    device: str,
    support: Path,
    query: Path,
    batch: int,
    style: str,
    output: Path | None,
) -> None:
    """Predict the classes of images with a trained learner of RUN.

    The learner of the cell adapts to the images of --support, any number of classes and of images of each, and
    classifies the images of --query. All are read as the dataset of the cell reads its images.

    Where the folders of the queries have names of classes, the accuracy is said. "known" is the largest
    probability before calibration: a low one speaks for none of the classes.
    """
    from metabench.cli.progress import pack_progress
    from metabench.errors import CellFailed, StoreError, UsageError
    from metabench.files import atomic_file
    from metabench.learners.image_folders import files_of_episode
    from metabench.learners.prediction import check_classifies, reader_of
    from metabench.learners.prediction import predict as predicted
    from metabench.learners.prediction_text import notes, predictions_text
    from metabench.registry.manager import PluginManager
    from metabench.text import encodable

    if output is not None and output.exists():
        raise StoreError(f"{output} exists already: choose another file with --output")
    record = chosen_cell(run, cell, only)
    check_classifies(record)
    files = files_of_episode(support, query)
    learner = learner_of(run, record, device)
    dataset = reader_of(record, learner, PluginManager.from_environment())
    try:
        with pack_progress() as progress:
            found = predicted(learner, record, dataset, files, batch, progress)
    except CellFailed as problem:
        raise UsageError(f"cell {record.cell} cannot predict: {problem}") from problem
    text = predictions_text(found, record, style)
    if output is None:
        say(encodable(text, output_encoding()), end="")
    else:
        try:
            with atomic_file(output) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"cannot write {output}: {error.strerror}. Name another file with --output") from error
    for line in notes(found, record) if style != "table" or output is not None else ():
        say(line, err=True)
