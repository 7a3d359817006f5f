"""The trained learner of a cell: it adapts to a support set, and answers queries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench.api import Algorithm, Backbone, Classification, Episodes, Regression, SourceSplit, Split, Task
from metabench.data.packing import DataRoots
from metabench.engine.asking import ask
from metabench.engine.batching import InOrder
from metabench.engine.learner import computing, finished_learner, regression_of
from metabench.engine.progress import Quiet, Watcher, as_phases
from metabench.engine.scaling import Scale, scaled
from metabench.engine.streams import evaluation_stream
from metabench.errors import CellFailed, StoreError, UsageError
from metabench.executors.loading import LoadedDataset, load_dataset
from metabench.executors.origin import training_origin
from metabench.machine.device import choose_device
from metabench.planning.cells import Cell
from metabench.planning.fitting import datasets_of
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import read_suite, resolve
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.records.trained import TrainingFiles
from metabench.registry.manager import PluginManager
from metabench.text import counted

#: Images, labels or numbers, as a tensor or an array.
Values = Tensor | npt.NDArray[np.generic]


@dataclass(frozen=True)
class TrainedLearner:
    """The learner that a cell has tested.

    Images are [n, C, H, W], in uint8 as the dataset's, or in float as `metabench.episodes` gives them; of a dataset of
    vectors, [n, D] numbers.

    Attributes:
        cell: the cell.
        image_shape: (C, H, W) of its images, or (D,) of its vectors.
        way: the number of classes that it can tell apart; None if any. 1 of a regression.
        temperature: the divisor of scores at which its probabilities are calibrated; 1 where none was fitted.
        device: the device that holds the weights.
        remarks: differences from the learner that was tested, for people.
    """

    cell: Cell
    image_shape: tuple[int, ...]
    way: int | None
    temperature: float
    device: torch.device
    remarks: Sequence[str]
    _algorithm: Algorithm
    _splits: Mapping[str, Split | SourceSplit]
    _scale: Scale | None
    _regression: Regression | None

    @property
    def backbone(self) -> Backbone:
        """Return the network that maps its normalised images to features, in eval mode."""
        return self._algorithm.backbone

    @property
    def reads_features(self) -> bool:
        """Return whether the method reads features and leaves the backbone as it is."""
        return self._algorithm.reads == "features"

    @property
    def scale_of_images(self) -> tuple[Tensor, Tensor]:
        """Return the [C, 1, 1] mean and std of images between 0 and 1; 0 and 1 for vectors."""
        split = self._splits["test"]
        if not isinstance(split, Split) or len(self.image_shape) == 1:
            return torch.zeros(1, device=self.device), torch.ones(1, device=self.device)
        mean, std = (torch.tensor(values, device=self.device).reshape(-1, 1, 1) for values in (split.mean, split.std))
        return mean, std

    def episode(self, number: int) -> Episodes:
        """Return an episode of its test, with normalised images.

        Args:
            number: the number of the episode, from 0 on.
        """
        return evaluation_stream(self.cell, self._splits, self.device).batch(number, 1)

    def check_way(self, way: int) -> None:
        """Refuse a number of classes that the learner cannot tell apart.

        Raises:
            UsageError: it cannot.
        """
        if way < 2 or (self.way is not None and way != self.way):
            fit = "two classes or more" if self.way is None else f"{self.way} classes, as it was built for"
            raise UsageError(f"the support set has {way}: the learner of this cell tells apart {fit}")

    def scores(
        self, support_x: Values, support_y: Values, query_x: Values, batch: int | None = None, episode: int = 0
    ) -> Tensor:
        """Adapt to a support set, and return the scores of queries.

        Args:
            support_x: [S, …] support images.
            support_y: [S] labels 0 … N-1; [S, outputs] numbers of a regression.
            query_x: [M, …] queries.
            batch: most queries asked at once; None asks all of them. A transductive learner answers otherwise.
            episode: the number that seeds what the learner draws at random, as that of an episode does in a test.

        Returns:
            [M, N] scores, log-probabilities up to a constant and `temperature`; [M, outputs] numbers of a regression.

        Raises:
            CellFailed: the learner returns no scores.
            UsageError: images or labels are not as above.
        """
        support, queries = self._inputs(support_x, "support images"), self._inputs(query_x, "queries")
        task, labels = self._task(support_y, len(support))
        drawn = Episodes(support[None], labels[None], queries[None], labels.new_empty(1, 0), task)
        questions = [part[None] for part in torch.split(queries, batch or len(queries))]
        with computing(self.cell.training, self.device):
            answers = ask(self._algorithm, drawn, questions, self.cell.test.seed, episode)
        return torch.cat(answers, dim=1)[0]

    def probabilities(
        self, support_x: Values, support_y: Values, query_x: Values, batch: int | None = None, episode: int = 0
    ) -> Tensor:
        """Adapt to a support set, and return the [M, N] calibrated probabilities of queries.

        Arguments and errors are those of `scores`.
        """
        if self._regression is not None:
            raise UsageError("a regression answers numbers, not probabilities: ask for its scores")
        scores = self.scores(support_x, support_y, query_x, batch, episode)
        return torch.softmax(scores.double() / self.temperature, dim=-1)

    def _inputs(self, values: Values, name: str) -> Tensor:
        """Return images as the network reads them."""
        x = torch.as_tensor(values).to(self.device)
        if x.ndim == 0 or not len(x) or tuple(x.shape[1:]) != self.image_shape:
            expected = ", ".join(map(str, ("n", *self.image_shape)))
            raise UsageError(f"the {name} have the shape {list(x.shape)}: the learner of this cell takes [{expected}]")
        return x.float() if self._scale is None else self._scale(x if x.dtype == torch.uint8 else x.float())

    def _task(self, support_y: Values, images: int) -> tuple[Task, Tensor]:
        """Return the task of a support set, and its checked labels."""
        y = torch.as_tensor(support_y).to(self.device)
        if self._regression is not None:
            if tuple(y.shape) != (images, self._regression.outputs):
                raise UsageError(
                    f"the support numbers have the shape {list(y.shape)}, not [{images}, {self._regression.outputs}]"
                )
            return self._regression, y.float()
        y = y.long()
        found = sorted(set(y.flatten().tolist()))
        if tuple(y.shape) != (images,) or found != list(range(len(found))):
            raise UsageError(
                f"the labels are {found[:10]} for {counted(images, 'support image')}: give each one a label, counted "
                "from 0 without gaps"
            )
        self.check_way(len(found))
        return Classification(len(found)), y


def load_learner(directory: Path, cell: str, device: str = "auto", watcher: Watcher | None = None) -> TrainedLearner:
    """Return the learner that a cell of a run has tested, with its kept weights.

    The data of its training are loaded, since some algorithms prepare themselves by them.

    Args:
        directory: the output directory of the run.
        cell: the id of the cell.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        watcher: sees the progress.

    Raises:
        CellFailed: the weights do not fit.
        DataError: the data are missing.
        StoreError: weights or suite are missing or damaged.
        UsageError: the run has no such cell with results.
    """
    store, plugins = Store(directory), PluginManager.from_environment()
    record = store.records_by_name().get(cell)
    if record is None or record.status != "ok":
        raise UsageError(f"{directory} has no finished cell {cell}" + (f": it is {record.status}" if record else ""))
    watcher = watcher or Quiet()
    planned = _planned(directory, record, plugins)
    on = choose_device(device)
    roots = DataRoots.from_environment(os.environ)
    datasets = {
        label: load_dataset(choice, plugins, roots, on, as_phases(watcher))
        for label, choice in datasets_of([planned]).items()
    }
    learner = finished_learner(planned.training, datasets, on, plugins, directory, watcher, {})
    with computing(planned.training, on):
        algorithm = learner.ready(planned, watcher).algorithm.eval()
    algorithm.batching = InOrder()
    splits = scaled(learner.datasets[planned.dataset.label].splits, algorithm.backbone)
    tested = splits["test"]
    regression = regression_of(learner.datasets[planned.dataset.label].splits)
    return TrainedLearner(
        cell=planned,
        image_shape=tested.input_shape,
        way=None if type(algorithm).any_way and regression is None else planned.shape.way,
        temperature=record.temperature.value if record.temperature else 1.0,
        device=on,
        remarks=_remarks(planned, record, datasets, on, plugins, directory),
        _algorithm=algorithm,
        _splits=splits,
        _scale=Scale(tested, on) if isinstance(tested, Split) else None,
        _regression=regression,
    )


def _planned(directory: Path, record: Record, plugins: PluginManager) -> Cell:
    """Return the cell of a record, from the suite of its run.

    Raises:
        StoreError: the suite is missing, or of other settings.
    """
    path = directory / "suite.yaml"
    if not path.is_file():
        raise StoreError(f"there is no {path}: only a cell that `metabench run` has trained has a learner")
    suite, file = resolve(read_suite(path))
    cells = make_plan(suite.with_seeds([record.seed]), file, plugins)
    found = next((cell for cell in cells if cell.id == record.cell), None)
    if found is None:
        raise StoreError(f"{path} has not the settings of cell {record.cell}: run the suite again")
    if found.problem:
        raise CellFailed(found.problem)
    return found


def _remarks(
    cell: Cell,
    record: Record,
    datasets: dict[str, LoadedDataset],
    device: torch.device,
    plugins: PluginManager,
    directory: Path,
) -> list[str]:
    """Return what has changed since the weights were made."""
    lines = []
    trained = TrainingFiles(directory, cell.training.id).read()
    data = datasets[cell.training.dataset.label]
    now = training_origin(cell.training, data.fingerprint, device, plugins)
    for part in ("algorithm", "backbone"):
        if trained and trained.origin.get(part) != now[part]:
            lines.append(f"the code of the {part} has changed since its weights were made: answers may differ")
    if trained and trained.origin.get("dataset_fingerprint") != data.fingerprint:
        lines.append(f"the data of {cell.training.dataset.label} have changed since its weights were made")
    if record.temperature is None and record.task == "classification":
        lines.append("no temperature was fitted: its probabilities are not calibrated")
    return lines
