"""Compare the episodes of cells with the sizes of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metabench.data.class_choice import class_choice
from metabench.data.order import Order
from metabench.data.sampler import EpisodeShape
from metabench.errors import CellFailed
from metabench.planning.cells import Cell
from metabench.planning.targets import Choice

if TYPE_CHECKING:  # imports torch
    from metabench.api import SourceSplit, Split, SplitSize


def check_cell(cell: Cell, datasets: Mapping[str, Mapping[str, Split | SourceSplit]]) -> None:
    """Check that every split has enough classes that can be drawn for the cell's episodes.

    `make_plan` checks the datasets that know their sizes before loading; this checks the loaded data.

    Args:
        cell: the cell.
        datasets: the splits of the datasets of its training, validation and test, by label.

    Raises:
        CellFailed: a split is too small.
    """
    for name, (choice, shape) in episodes_by_split(cell).items():
        check_split(datasets[choice.label][name], shape, choice.label, name)


def check_split(split: Split | SourceSplit, shape: EpisodeShape, dataset: str, name: str) -> None:
    """Check that a split has enough classes that can be drawn for episodes of a shape.

    Args:
        split: the split.
        shape: the shape.
        dataset: label of the dataset.
        name: name of the split.

    Raises:
        CellFailed: it is too small, or has not what the rule of its classes asks for.
    """
    from metabench.api import SourceSplit

    if isinstance(split, SourceSplit):
        if lacking := split.misfit(shape.shot, shape.queries):
            raise CellFailed(f"'{dataset}': {lacking}")
        return
    rules = {"one-of-a-group": ("groups", split.groups), "one-family": ("families", split.families)}
    kind, sets = rules.get(shape.sampling or "", ("", ()))
    if sets is None:
        raise CellFailed(f"the classes of '{dataset}' have no {kind}: remove sampling: {shape.sampling}")
    if problem := misfit(shape, dataset, name, split.size):
        raise CellFailed(problem.message)
    drawn = split.size.classes - classes_left_out(split, shape)
    if drawn < shape.least_way:
        raise CellFailed(
            f"{shape.least_way} ways asked of '{dataset}', but only {drawn} of the {split.size.classes} classes of its "
            f"{name} split have {shape.per_class} images ({shape.shot} shots + {shape.queries} queries): lower the "
            "ways, the shots or the queries"
        )
    if (most := most_ways(split, shape)) < shape.least_way:
        together = "groups of classes" if shape.sampling == "one-of-a-group" else "classes of one family"
        raise CellFailed(
            f"{shape.least_way} ways asked of '{dataset}', whose {name} split has at most {most} {together} "
            f"(sampling: {shape.sampling}): lower the ways"
        )


def datasets_of(cells: Iterable[Cell]) -> dict[str, Choice]:
    """Return the datasets of training, validation and test, by label, of the cells that can run."""
    choices = (
        choice
        for cell in cells
        if not cell.problem
        for choice in (cell.training.dataset, cell.dataset, *filter(None, [cell.selection.on]))
    )
    return {choice.label: choice for choice in choices}


def episodes_by_split(cell: Cell) -> dict[str, tuple[Choice, EpisodeShape]]:
    """Return the dataset and the shape of a cell's episodes, by the splits that it draws from, not from a file."""
    training, schedule = cell.training, cell.training.schedule
    drawn = {} if cell.test.file else {"test": (cell.dataset, cell.shape)}
    if schedule is None:
        return drawn
    drawn = {"val": (cell.selection.on or training.dataset, cell.selection.shape), **drawn}
    return drawn if schedule.shape is None else {"train": (training.dataset, schedule.shape), **drawn}


def classes_left_out(split: Split, shape: EpisodeShape) -> int:
    """Return the number of classes with too few images for episodes of a shape, which are not drawn."""
    return int((split.offsets.diff() < shape.per_class).sum())


def most_ways(split: Split, shape: EpisodeShape) -> int:
    """Return the largest way of episodes of a shape: of its classes with enough images that may stand together."""
    order = Order.of(split, shape.per_class)
    return class_choice(shape.sampling, shape.way, len(order.names), order.groups, order.families).most


def fits(shape: EpisodeShape, splits: Mapping[str, Split | SourceSplit]) -> bool:
    """Return whether loaded data have enough classes and images for validation episodes of a shape."""
    from metabench.api import SourceSplit

    split = splits["val"]
    if isinstance(split, SourceSplit):
        return not split.misfit(shape.shot, shape.queries)
    return most_ways(split, shape) >= shape.least_way


@dataclass(frozen=True)
class Misfit:
    """An episode shape too large for a split.

    Attributes:
        dimension: ``"way"`` or ``"shot"``, the setting to lower.
        message: the error message.
    """

    dimension: str
    message: str


def misfit(shape: EpisodeShape, dataset: str, split: str, size: SplitSize) -> Misfit | None:
    """Return why a split is too small for episodes; None if it is not."""
    if shape.sampling == "meta-dataset":
        if size.classes >= shape.least_way and size.most_images >= shape.per_class:
            return None
        return Misfit(
            "way",
            f"episodes of varying ways have at least {shape.least_way} classes of {shape.per_class} images, and the "
            f"{split} split of '{dataset}' has {size.classes} of at most {size.most_images}: remove eval.sampling",
        )
    if shape.way > size.classes:
        return Misfit(
            "way",
            f"{shape.way} ways asked of '{dataset}', whose {split} split has {size.classes} classes: lower the ways",
        )
    if shape.per_class > size.most_images:
        at_most = "" if size.most_images == size.images_per_class else "at most "
        return Misfit(
            "shot",
            f"{shape.per_class} images of a class asked of '{dataset}' ({shape.shot} shots + {shape.queries} queries), "
            f"whose {split} split has {at_most}{size.most_images}: lower the shots or the queries",
        )
    return None
