"""Advice where memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from metabench.data.sampler import EpisodeShape
from metabench.errors import CellFailed
from metabench.machine.memory import is_out_of_memory
from metabench.planning.cells import Training


def training_memory(training: Training) -> AbstractContextManager[None]:
    """Turn an out-of-memory error of the training into a `CellFailed` that names settings to lower."""
    schedule, settings = training.schedule, ""
    if schedule and schedule.shape:
        way, queries = schedule.shape.way, schedule.shape.queries
        settings = f"train.meta_batch ({schedule.batch}), train.way ({way}), train.queries ({queries}) or "
    elif schedule:
        settings = f"train.batch ({schedule.batch}) or "
    return _advice(f"out of memory in training: lower {settings}the size of the backbone ({training.backbone.label})")


def testing_memory(shape: EpisodeShape, training: Training) -> AbstractContextManager[None]:
    """Turn an out-of-memory error of a test or validation of single episodes into a `CellFailed`."""
    if shape.varies:
        return _advice(
            f"out of memory in a single test episode of varying size: lower the size of the backbone "
            f"({training.backbone.label})"
        )
    return _advice(
        f"out of memory in a single test episode: lower ways ({shape.way}), shots ({shape.shot}), queries "
        f"({shape.queries}) or the size of the backbone ({training.backbone.label})"
    )


@contextmanager
def _advice(message: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise CellFailed(message) from error
