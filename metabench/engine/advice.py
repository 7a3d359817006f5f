"""Advice where memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from metabench.errors import CellFailed
from metabench.machine.memory import is_out_of_memory
from metabench.planning.plan import Cell


def training_memory(cell: Cell) -> AbstractContextManager[None]:
    """Turn an out-of-memory error of the training into a `CellFailed` that names settings to lower."""
    train = cell.train
    return _advice(
        f"out of memory in training: lower train.meta_batch ({train.meta_batch}), train.way ({train.shape.way}), "
        f"train.queries ({train.shape.queries}) or the size of the backbone ({cell.backbone.label})"
    )


def testing_memory(cell: Cell) -> AbstractContextManager[None]:
    """Turn an out-of-memory error of a test or validation of single episodes into a `CellFailed`."""
    shape = cell.shape
    return _advice(
        f"out of memory in a single test episode: lower ways ({shape.way}), shots ({shape.shot}), queries "
        f"({shape.queries}) or the size of the backbone ({cell.backbone.label})"
    )


@contextmanager
def _advice(message: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise CellFailed(message) from error
