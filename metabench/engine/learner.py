"""Build an algorithm, give it its weights, and hand it to the tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from metabench.analysis.declared import measures_of
from metabench.api import Algorithm, Classification, Regression, Setup, SourceSplit, Split
from metabench.data.packing import LoadedDataset
from metabench.engine.advice import testing_memory, training_memory
from metabench.engine.checkpoints import writing_weights
from metabench.engine.feature_store import FeatureStore
from metabench.engine.features import with_features
from metabench.engine.images import prepare, train_classes
from metabench.engine.outcome import Outcome, SelectedWeights, test
from metabench.engine.precision import autocast_of, tf32
from metabench.engine.progress import Judge, Pruned, Watcher
from metabench.engine.scaling import scaled
from metabench.engine.steps import steps_of
from metabench.engine.streams import evaluation_stream, training_stream, validation_stream
from metabench.engine.subsets import splits_of
from metabench.engine.training import train
from metabench.engine.trial import set_batchings
from metabench.engine.views import views_of
from metabench.engine.weights import (
    check_unchanged,
    keep_weights,
    kept_weights,
    load_snapshot,
    load_weights,
    nearest_snapshot,
)
from metabench.errors import CellFailed, StoreError, Unfit
from metabench.machine.memory import PeakMemory
from metabench.machine.meter import Meter
from metabench.machine.reproducible import derive_seed, deterministic, seed_generators
from metabench.planning.cells import Cell, Choice, Selection, Snapshot, Training, WeightsFile
from metabench.planning.fitting import check_cell, check_split, fits
from metabench.records.record import EpisodeResults
from metabench.records.stages import Usage
from metabench.records.trained import Trained, TrainingFiles
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager


def build(
    training: Training,
    splits: Mapping[str, Split | SourceSplit],
    device: torch.device,
    plugins: PluginManager,
    algorithm: Choice | None = None,
    way: int | None = None,
    teacher: Algorithm | None = None,
    regression: Regression | None = None,
) -> Algorithm:
    """Build an algorithm and its backbone from the seed of a training.

    Args:
        training: the training.
        splits: the splits of its dataset.
        device: the device that will hold the weights.
        plugins: the provider of the classes.
        algorithm: the algorithm with all its parameters; by default, that of the training.
        way: N of the test episodes; by default, that of the training.
        teacher: the algorithm to learn from.
        regression: the task of its episodes, if it is no classification.

    Raises:
        Unfit: the algorithm cannot do the task, or the algorithm or the backbone does not fit.
    """
    seed_generators(derive_seed(training.seed, "initialise"))
    choice = algorithm or training.algorithm
    backbone_class = plugins.backbone_class(training.backbone.name)
    algorithm_class = plugins.algorithm_class(choice.name)
    regression = regression_of(splits)
    kind = Classification.kind if regression is None else regression.kind
    if kind not in algorithm_class.tasks:
        raise Unfit(f"it does {' and '.join(algorithm_class.tasks)} only, and the episodes are of {kind}")
    config, train = validate_config(backbone_class.Config, training.backbone.params), splits["train"]
    backbone = backbone_class(config, image_shape_of(splits))
    backbone.autocast = autocast_of(training.precision)
    schedule = training.schedule
    way = training.way if way is None else way
    if way == 0 and not algorithm_class.any_way:
        raise Unfit(
            "it is built for one way, and the ways of the test episodes vary: only an algorithm of any way fits"
        )
    setup = Setup(
        backbone,
        test_way=None if algorithm_class.any_way else way,
        train_way=schedule.shape.way if schedule and schedule.shape else None,
        train_steps=steps_of(schedule, train) if schedule else 0,
        teacher=teacher,
        train_classes=0 if isinstance(train, SourceSplit) else train_classes(train),
        regression=regression,
    )
    built = algorithm_class(validate_config(algorithm_class.Config, choice.params), setup)
    built.distort = views_of(training, scaled(splits, backbone)["train"], device)
    # On a CPU, convolutions of channels-last weights run up to three times faster.
    layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
    return built.to(device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def image_shape_of(splits: Mapping[str, Split | SourceSplit]) -> tuple[int, ...]:
    """Return (C, H, W) of the images, or (D,) of vectors."""
    return splits["train"].input_shape


def regression_of(splits: Mapping[str, Split | SourceSplit]) -> Regression | None:
    """Return the task of the episodes of a source; None for classification."""
    split = splits["train"]
    return split.source.task if isinstance(split, SourceSplit) else None


def build_tested(
    cell: Cell, splits: Mapping[str, Split | SourceSplit], device: torch.device, plugins: PluginManager
) -> Algorithm:
    """Build the algorithm that a cell tests; see `build`."""
    return build(cell.training, splits, device, plugins, cell.algorithm, cell.shape.way)


@contextmanager
def computing(training: Training, device: torch.device) -> Iterator[None]:
    """Compute reproducibly in the precision of a training, and leave torch's generators as they were."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), deterministic(), tf32(training.precision == "tf32"):
        yield


@dataclass(frozen=True)
class Ready:
    """An algorithm that is ready to be tested.

    Attributes:
        algorithm: the algorithm with the selected weights.
        weights: these weights; None if nothing was trained.
        splits: the splits of the cell's dataset; features where the backbone stays as it is.
    """

    algorithm: Algorithm
    weights: SelectedWeights | None
    splits: Mapping[str, Split | SourceSplit]


@dataclass(frozen=True)
class Learner:
    """An algorithm whose training is finished, or was not needed.

    Attributes:
        training: the training.
        algorithm: the algorithm of the training.
        trained: the weights that it has selected; None if nothing is trained.
        files: the places of its files.
        datasets: the datasets of training, validation and tests, by label; that of the training with its limits.
        origin: device, data, code and versions that the weights depend on.
        device: the device that holds the weights.
        plugins: the provider of the classes.
        memory: the peak memory since the algorithm was built.
        is_batched: whether the batchings of the algorithm are chosen.
    """

    training: Training
    algorithm: Algorithm
    trained: Trained | None
    files: TrainingFiles
    datasets: Mapping[str, LoadedDataset]
    origin: Mapping[str, str]
    device: torch.device
    plugins: PluginManager
    memory: PeakMemory
    is_batched: bool = True

    def test(self, cell: Cell, watcher: Watcher, earlier: EpisodeResults | None = None) -> Outcome:
        """Test the weights that the training has selected for a cell.

        Args:
            cell: a cell of the training.
            watcher: sees the progress, and may ask to stop.
            earlier: results of the first episodes, which are not tested again.

        Raises:
            CellFailed: a split is too small, the weights do not fit, a score is not finite, or memory is too small.
            Interrupted: `watcher` asked to stop.
            StoreError: the weights cannot be read.
            Unfit: the images of the test have another shape than those of the training.
        """
        with (
            Meter(self.device) as meter,
            computing(self.training, self.device),
            testing_memory(cell.shape, self.training),
        ):
            ready = self.ready(cell, watcher)
            if not cell.is_trained_by_itself or self.trained is None or not self.is_batched:
                stream = evaluation_stream(cell, ready.splits, self.device)
                set_batchings(ready.algorithm, stream.batch(0, 1 if stream.varies else 2), trains=False)
            outcome = test(
                cell,
                ready.algorithm,
                ready.splits,
                self.device,
                self.trained,
                ready.weights,
                self.memory,
                watcher,
                earlier,
                measures_of(self.plugins, cell.test.task),
            )
            usage = Usage.model_validate(asdict(meter.read()))
            return replace(outcome, eval=outcome.eval.model_copy(update={"usage": usage}))

    def ready(self, cell: Cell, watcher: Watcher) -> Ready:
        """Return the algorithm of a cell with its weights, prepared for the test; called while `computing`.

        Args:
            cell: a cell of the training.
            watcher: sees the progress, and may ask to stop.

        Raises:
            CellFailed, Interrupted, StoreError, Unfit: as `test`.
        """
        check_cell(cell, {label: data.splits for label, data in self.datasets.items()})
        self._check_shape(cell)
        algorithm, weights = self._with_weights(cell)
        rows = _Rows(self.training, self.datasets, self.origin, self.device, watcher)
        fixed = not cell.is_trained_by_itself or self.trained is None
        train = rows.of(self.training.dataset, algorithm, fixed)["train"]
        prepare(algorithm, train, cell.seed, self.device, watcher)
        splits = self._splits(cell, algorithm, rows, fixed)
        algorithm.distort = views_of(self.training, splits["test"], self.device)
        return Ready(algorithm, weights, splits)

    def _check_shape(self, cell: Cell) -> None:
        """Refuse images of another shape than those of the training."""
        trained, tested = (
            image_shape_of(self.datasets[choice.label].splits) for choice in (self.training.dataset, cell.dataset)
        )
        if trained != tested:
            raise Unfit(
                f"it is trained on images of shape {trained} ({self.training.dataset.label}), and those of "
                f"{cell.dataset.label} have {tested}: give both datasets the same size and channels"
            )

    def _with_weights(self, cell: Cell) -> tuple[Algorithm, SelectedWeights | None]:
        """Return the algorithm of a cell with its weights."""
        own, algorithm = cell.is_trained_by_itself, self.algorithm
        if own:
            algorithm.config = validate_config(type(algorithm.config), cell.algorithm.params)
        else:
            splits = self.datasets[self.training.dataset.label].splits
            algorithm = build_tested(cell, splits, self.device, self.plugins)
        if self.trained is None:
            if not own:
                algorithm.backbone.load_state_dict(self.algorithm.backbone.state_dict())
            return algorithm, None
        name = nearest_snapshot(self.trained, cell.selection)
        load_snapshot(algorithm, self.trained, name, self.files, whole=own)
        return algorithm, SelectedWeights(name, cell.selection, self.trained.snapshots[name])

    def _splits(self, cell: Cell, algorithm: Algorithm, rows: _Rows, fixed: bool) -> dict[str, Split | SourceSplit]:
        """Return the splits that a cell is tested and validated on; features where the backbone stays as it is."""
        splits = rows.of(cell.dataset, algorithm, fixed)
        validated_on = cell.selection.on or self.training.dataset
        if validated_on == cell.dataset:
            return splits
        return {**splits, "val": rows.of(validated_on, algorithm, fixed)["val"]}


@dataclass(frozen=True)
class _Rows:
    """The rows that an algorithm reads of the datasets of a job.

    Attributes:
        training: the training.
        datasets: the datasets, by label.
        origin: device, data, code and versions that the weights depend on.
        device: the device that embeds.
        watcher: sees the progress, and may ask to stop.
    """

    training: Training
    datasets: Mapping[str, LoadedDataset]
    origin: Mapping[str, str]
    device: torch.device
    watcher: Watcher

    def of(
        self, choice: Choice, algorithm: Algorithm, fixed: bool = False, distorted: bool = False
    ) -> dict[str, Split | SourceSplit]:
        """Return the splits of a dataset; features where the backbone stays as it is (`with_features`)."""
        data = self.datasets[choice.label]
        origin = self.origin
        if "dataset_fingerprint" in origin:
            origin = {**origin, "dataset_fingerprint": data.fingerprint}
        store = FeatureStore.of(self.training, choice, origin, data.features)
        images = scaled(data.splits, algorithm.backbone)
        return with_features(images, algorithm, store, self.device, self.watcher, fixed, distorted)


def make_learner(
    training: Training,
    selections: Sequence[Selection],
    datasets: Mapping[str, LoadedDataset],
    device: torch.device,
    plugins: PluginManager,
    directory: Path,
    watcher: Watcher,
    origin: Mapping[str, str] | None = None,
    batch: int | None = None,
    reselect: bool = False,
    judge: Judge | None = None,
) -> Learner:
    """Train an algorithm, resume its checkpoint, or take the weights that an earlier run has kept.

    Args:
        training: the training.
        selections: the validation episodes by which weights are selected.
        datasets: the datasets of training, validation and tests, by label.
        device: the device that it runs on.
        plugins: the provider of the classes.
        directory: the output directory.
        watcher: sees the progress, and may ask to stop.
        origin: device, data, code and versions that the weights depend on; others are not used.
        batch: number of validation episodes at once; None chooses by device.
        reselect: whether to train again where the kept weights lack a selection.
        judge: asked during the training whether to end it early; None never does.

    Raises:
        CellFailed: a split is too small, the loss or a score is not finite, or memory is too small.
        Interrupted: `watcher` asked to stop.
        Pruned: `judge` ended the training, of which nothing is kept.
        StoreError: a checkpoint or weights cannot be written or read.
        Unfit: the algorithm or the backbone does not fit the training.
    """
    check_unchanged(training.backbone)
    files, memory, origin = TrainingFiles(directory, training.id), PeakMemory(device), origin or {}
    data = datasets[training.dataset.label]
    trained_on = splits_of(training, data.splits)
    datasets = {**datasets, training.dataset.label: replace(data, splits=trained_on)}
    with computing(training, device), training_memory(training):
        teacher = _teacher(training.teacher, data.splits, device, plugins, directory, watcher)
        algorithm = build(training, trained_on, device, plugins, teacher=teacher)
        _initialise(algorithm, training.init, directory)
        trained = None
        schedule = training.schedule
        if schedule is not None:
            trained = kept_weights(files, origin)
            # A selection for which a split is too small fails its cells only.
            validated_on = {selection: selection.on or training.dataset for selection in selections}
            selections = [
                selection
                for selection, choice in validated_on.items()
                if fits(selection.shape, datasets[choice.label].splits)
                and image_shape_of(datasets[choice.label].splits) == image_shape_of(trained_on)
            ]
            if trained and reselect and not {selection.name for selection in selections} <= trained.snapshots.keys():
                trained = None
            rows = _Rows(training, datasets, origin, device, watcher)
            splits = rows.of(training.dataset, algorithm, distorted=bool(schedule.augment))
            validation = {
                selection: rows.of(selection.on, algorithm) if selection.on else splits for selection in selections
            }
            if schedule.shape is not None:
                check_split(trained_on["train"], schedule.shape, training.dataset.label, "train")
                few = training_stream(training, splits, device).batch(0, min(2, schedule.batch))
                set_batchings(algorithm, few, trains=trained is None)
            elif selections:  # only validations and tests have episodes
                first = selections[0]
                few = validation_stream(schedule.validation_seed, validation[first], first.shape, device).batch(0, 2)
                set_batchings(algorithm, few)
            if trained is None:
                with Meter(device) as meter, _forgotten_if_pruned(files):
                    progress = train(
                        training,
                        algorithm,
                        splits,
                        validation,
                        device,
                        files.checkpoint,
                        origin,
                        memory,
                        meter,
                        watcher,
                        batch,
                        judge,
                    )
                trained = keep_weights(algorithm, progress, training, origin, files)
        return Learner(training, algorithm, trained, files, datasets, origin, device, plugins, memory)


@contextmanager
def _forgotten_if_pruned(files: TrainingFiles) -> Iterator[None]:
    """Delete the checkpoint of a training that ends early."""
    try:
        yield
    except Pruned:
        with writing_weights(files.checkpoint):
            files.drop_checkpoint()
        raise


def finished_learner(
    training: Training,
    datasets: Mapping[str, LoadedDataset],
    device: torch.device,
    plugins: PluginManager,
    directory: Path,
    watcher: Watcher,
    origin: Mapping[str, str],
) -> Learner:
    """Return the learner of a finished run, from its kept weights; nothing is trained or moved.

    Args:
        training: the training.
        datasets: the datasets of training, validation and tests, by label.
        device: the device that it runs on, which need not be that of the run.
        plugins: the provider of the classes.
        directory: the output directory of the run.
        watcher: sees the progress, and may ask to stop.
        origin: device, data, code and versions of today, by which kept features are found.

    Raises:
        CellFailed: weights that it needs do not fit.
        StoreError: its weights are not kept, or cannot be read.
        Unfit: the algorithm or the backbone does not fit the training.
    """
    files, memory = TrainingFiles(directory, training.id), PeakMemory(device)
    trained = files.read() if training.schedule else None
    if training.schedule and trained is None:
        raise StoreError(f"{directory} keeps no weights of {training.title}: run the suite again, and keep them")
    data = datasets[training.dataset.label]
    trained_on = splits_of(training, data.splits)
    datasets = {**datasets, training.dataset.label: replace(data, splits=trained_on)}
    with computing(training, device):
        teacher = _teacher(training.teacher, data.splits, device, plugins, directory, watcher)
        algorithm = build(training, trained_on, device, plugins, teacher=teacher)
        _initialise(algorithm, training.init, directory)
    return Learner(training, algorithm, trained, files, datasets, origin, device, plugins, memory, is_batched=False)


def _initialise(algorithm: Algorithm, source: Snapshot | WeightsFile | None, directory: Path) -> None:
    """Load the weights from which a training starts."""
    if isinstance(source, WeightsFile):
        load_weights(algorithm, source.path, source.sha256, whole=False)
    elif source is not None:
        trained, files = _trained(source, directory)
        load_snapshot(algorithm, trained, nearest_snapshot(trained, source.selection), files, whole=False)


def _teacher(
    source: Snapshot | None,
    splits: Mapping[str, Split | SourceSplit],
    device: torch.device,
    plugins: PluginManager,
    directory: Path,
    watcher: Watcher,
) -> Algorithm | None:
    """Return the trained algorithm to learn from."""
    if source is None:
        return None
    splits = splits_of(source.training, splits)
    teacher = build(source.training, splits, device, plugins)
    if source.training.schedule is None:
        _initialise(teacher, source.training.init, directory)
    else:
        trained, files = _trained(source, directory)
        load_snapshot(teacher, trained, nearest_snapshot(trained, source.selection), files, whole=True)
    prepare(teacher, scaled(splits, teacher.backbone)["train"], source.training.seed, device, watcher)
    return teacher.eval().requires_grad_(False)


def _trained(source: Snapshot, directory: Path) -> tuple[Trained, TrainingFiles]:
    """Return a finished training that another one needs.

    Raises:
        CellFailed: it has not left its weights.
    """
    files = TrainingFiles(directory, source.training.id)
    trained = files.read()
    if trained is None:
        raise CellFailed(f"it needs the weights of '{source.training.algorithm.label}', whose training has failed")
    return trained, files
