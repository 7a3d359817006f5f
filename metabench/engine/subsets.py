"""The splits of a training that sees a subset of its data."""

from __future__ import annotations

from collections.abc import Mapping

from metabench.api import SourceSplit, Split
from metabench.data.subsets import limited
from metabench.planning.cells import Training


def splits_of(training: Training, splits: Mapping[str, Split | SourceSplit]) -> Mapping[str, Split | SourceSplit]:
    """Return the splits of the dataset of a training, ``train`` with its limits; the others stay as they are.

    Raises:
        CellFailed: the split has fewer classes or images than a limit.
    """
    train = splits["train"]
    if training.subset is None or isinstance(train, SourceSplit):
        return splits
    return {**splits, "train": limited(train, training.subset, training.seed)}
