"""Predict the classes of image files with a trained learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metabench.analysis.metrics import log_probabilities
from metabench.analysis.shift import auroc
from metabench.analysis.stats import Floats
from metabench.api import Dataset, Progress
from metabench.errors import UsageError
from metabench.learners.image_folders import EpisodeFiles, ImageFile, read_images
from metabench.learners.trained import TrainedLearner
from metabench.records.record import Record
from metabench.registry.manager import PluginManager


@dataclass(frozen=True)
class Predictions:
    """What a learner has answered about image files.

    Attributes:
        classes: [N] names of the classes of the support set, sorted.
        shots: [N] support images of each class.
        queries: [M] the images that were asked about.
        probabilities: [M, N] probabilities, calibrated if the cell has a temperature.
        known: [M] score of "one of these classes", 0 … 1: the largest probability before calibration, whose AUROC
            ``eval.strangers`` measures. A query of none of the classes tends to a lower one.
        remarks: what a reader has to know.
    """

    classes: Sequence[str]
    shots: Sequence[int]
    queries: Sequence[ImageFile]
    probabilities: Floats
    known: Floats
    remarks: Sequence[str]

    @property
    def labels(self) -> list[str]:
        """Return the [M] predicted classes."""
        return [self.classes[label] for label in self.probabilities.argmax(axis=1)]

    @property
    def has_truth(self) -> bool:
        """Return whether the folders of the queries are named as classes of the support set."""
        return any(query.folder in self.classes for query in self.queries)

    @property
    def right(self) -> list[bool]:
        """Return whether each query of a class of the support set is right; queries of other folders have none."""
        pairs = zip(self.queries, self.labels, strict=True)
        return [query.folder == label for query, label in pairs if query.folder in self.classes]

    @property
    def auroc(self) -> float | None:
        """Return the area under the ROC curve by which `known` tells queries of other folders; None without any."""
        ours = np.array([query.folder in self.classes for query in self.queries])
        if not self.has_truth or ours.all():
            return None
        return float(auroc(self.known[None], ours[None])[0])


def predict(
    learner: TrainedLearner,
    record: Record,
    dataset: Dataset,
    files: EpisodeFiles,
    batch: int,
    progress: Progress,
) -> Predictions:
    """Adapt a learner to support images, and ask it about queries.

    Args:
        learner: the learner.
        record: the record of its cell.
        dataset: the dataset of its test, which reads the images (`reader_of`).
        files: the images (`metabench.learners.image_folders.files_of_episode`).
        batch: most queries asked at once; the learner adapts anew for each batch.
        progress: told of the progress.

    Raises:
        CellFailed: the learner fails.
        DataError: images are damaged.
        UsageError: the learner cannot tell so many classes apart.
    """
    learner.check_way(len(files.classes))
    labels, asked = np.array(files.labels), files.queries
    pixels = read_images([*files.support, *asked], dataset, learner.image_shape, progress)
    support_x, query_x = np.split(pixels, [len(labels)])
    parts = list[Floats]()
    for start in range(0, len(asked), batch):
        scores = learner.scores(support_x, labels, query_x[start : start + batch])
        parts.append(scores.double().cpu().numpy())
        progress(min(start + batch, len(asked)), len(asked), "predicting")
    scores_of_all = np.concatenate(parts)
    if np.isnan(scores_of_all).any():
        raise UsageError("the learner returns scores that are no numbers for these images")
    calibrated = np.exp(log_probabilities(scores_of_all, learner.temperature))
    known = np.exp(log_probabilities(scores_of_all).max(axis=1))
    return Predictions(
        classes=files.classes,
        shots=np.bincount(labels).tolist(),
        queries=asked,
        probabilities=calibrated,
        known=known,
        remarks=[*learner.remarks, *_remarks(record, len(asked), batch)],
    )


def reader_of(record: Record, learner: TrainedLearner, plugins: PluginManager) -> Dataset:
    """Return the dataset by which a learner reads image files.

    Raises:
        UsageError: its images are not made from image files.
    """
    choice = learner.cell.dataset
    dataset = plugins.build_dataset(choice.name, choice.params)
    if not isinstance(dataset, Dataset) or type(dataset).read_image is Dataset.read_image:
        raise UsageError(
            f"the dataset '{choice.name}' of cell {record.cell} reads no image files: choose a cell of a dataset that "
            "does, or give its class the method `read_image`"
        )
    return dataset


def check_classifies(record: Record) -> None:
    """Refuse a cell that is a regression.

    Raises:
        UsageError: it is.
    """
    if record.task == "regression":
        raise UsageError(f"cell {record.cell} is a regression: predict tells classes of images apart")


def _remarks(record: Record, queries: int, batch: int) -> list[str]:
    if not record.transductive:
        return []
    asked = f"{queries}" if queries <= batch else f"up to {batch}"
    return [f"{record.algorithm} is transductive: its answers depend on the {asked} queries asked together"]
