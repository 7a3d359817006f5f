"""Train and test one cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from metabench.analysis.stats import DataIntervals, Floats, mean_interval
from metabench.api import Algorithm, Setup, Split
from metabench.data.sampler import EpisodeShape, IntArray
from metabench.engine.batching import batching_for
from metabench.engine.checkpoints import TrainingProgress
from metabench.engine.evaluation import (
    evaluate,
    flops,
    inductive_accuracies,
    is_transductive,
    latency_ms,
    predict,
)
from metabench.engine.pictures import episode_png
from metabench.engine.precision import autocast_of, tf32
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.streams import EpisodeStream, evaluation_stream
from metabench.engine.training import train
from metabench.errors import CellFailed, in_one_line
from metabench.machine.clock import Stopwatch
from metabench.machine.memory import BatchSize, PeakMemory, is_out_of_memory
from metabench.machine.reproducible import derive_seed, deterministic, seed_generators
from metabench.planning.plan import Cell
from metabench.records.record import (
    Accuracy,
    ClassAccuracy,
    EpisodeResults,
    EvalMetrics,
    Latency,
    TrainMetrics,
    Validation,
)
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager

_T = TypeVar("_T")

#: Number of classes listed as the worst.
WORST_CLASSES = 10


@dataclass(frozen=True)
class Outcome:
    """The results of a cell; fields as in `metabench.records.record.Record`.

    Attributes:
        episodes: the per-episode results.
        picture: PNG of the worst episode; None if it could not be drawn.
    """

    accuracy: Accuracy
    inductive_accuracy: Accuracy | None
    episodes: EpisodeResults
    worst_classes: list[ClassAccuracy]
    picture: bytes | None
    transductive: bool
    train: TrainMetrics
    eval: EvalMetrics
    flops_per_episode: int | None
    peak_memory_bytes: int
    parameters: int
    remarks: list[str]


def build(cell: Cell, image_shape: tuple[int, int, int], device: torch.device, plugins: PluginManager) -> Algorithm:
    """Build the cell's algorithm and backbone from the cell's seed."""
    seed_generators(derive_seed(cell.seed, "initialise"))
    backbone_class = plugins.backbone_class(cell.backbone.name)
    algorithm_class = plugins.algorithm_class(cell.algorithm.name)
    backbone = backbone_class(validate_config(backbone_class.Config, cell.backbone.params), image_shape)
    backbone.autocast = autocast_of(cell.precision)
    setup = Setup(backbone, cell.shape.way, cell.train.shape.way, cell.train.steps)
    algorithm = algorithm_class(validate_config(algorithm_class.Config, cell.algorithm.params), setup)
    algorithm.batching = batching_for(device, algorithm.functional, algorithm.inner_loop)
    # On a CPU, convolutions of channels-last weights run up to three times faster.
    layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
    return algorithm.to(device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def image_shape_of(splits: Mapping[str, Split]) -> tuple[int, int, int]:
    """Return (C, H, W) of the images."""
    channels, height, width = splits["train"].images.shape[1:]
    return channels, height, width


def run_cell(
    cell: Cell,
    splits: Mapping[str, Split],
    device: torch.device,
    plugins: PluginManager,
    checkpoint: Path,
    watcher: Watcher,
    origin: Mapping[str, str] | None = None,
    shapes: Sequence[EpisodeShape] = (),
) -> Outcome:
    """Train a cell, or resume its checkpoint, and test it.

    Args:
        cell: the cell to run.
        splits: the splits ``train``, ``val`` and ``test`` of its dataset.
        device: the device that it runs on.
        plugins: the provider of the classes.
        checkpoint: the file to resume from and to write. The result does not depend on when a run was interrupted.
        watcher: sees the progress, and may ask to stop.
        origin: device, data and versions that the metrics depend on; a checkpoint of another origin is not used.
        shapes: test shapes of all cells that share the checkpoint (`metabench.planning.plan.Cell.training_id`); by
            default, the shape of this cell.

    Raises:
        CellFailed: the loss or a score is not finite, or memory is too small.
        Interrupted: `watcher` asked to stop.
        StoreError: a checkpoint cannot be written or read.
    """
    origin = origin or {}
    memory = PeakMemory(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), deterministic(), tf32(cell.precision == "tf32"), _memory_advice(cell):
        algorithm = build(cell, image_shape_of(splits), device, plugins)
        shapes = shapes or [cell.shape]
        progress = train(cell, algorithm, splits, device, checkpoint, origin, shapes, memory, watcher)
        return _test(cell, algorithm, splits, device, progress, memory, watcher)


# ------------------------------------------------------------------------------------------------- testing


def _test(
    cell: Cell,
    algorithm: Algorithm,
    splits: Mapping[str, Split],
    device: torch.device,
    progress: TrainingProgress,
    memory: PeakMemory,
    watcher: Watcher,
) -> Outcome:
    test = cell.test
    stream = evaluation_stream(cell, splits, device)
    watcher.phase("test", test.episodes)
    batch = BatchSize(device, test.batch, most=test.episodes)
    batch.fit(lambda size: predict(algorithm, stream.batch(0, size), test.seed, 0))  # warm-up, not timed
    watch = Stopwatch(device)
    with watch.running():
        by_class = evaluate(algorithm, stream, test.episodes, batch, test.seed, watcher)
    accuracies = by_class.mean(axis=1)
    groups = stream.groups(0, test.episodes)
    accuracy = _accuracy(accuracies, groups)
    transductive = is_transductive(algorithm, stream, test.seed)
    remarks: list[str] = []

    def test_inductively() -> Accuracy:
        watcher.phase("test inductively", test.inductive_episodes)
        inductive = inductive_accuracies(algorithm, stream, test.inductive_episodes, batch, test.seed, watcher)
        return _accuracy(inductive, groups[: len(inductive)])

    inductive_accuracy = _optional("inductive accuracy", test_inductively, remarks) if transductive else accuracy
    worst = int(accuracies.argmin())
    return Outcome(
        accuracy=accuracy,
        inductive_accuracy=inductive_accuracy,
        episodes=EpisodeResults(accuracies, groups),
        worst_classes=_worst_classes(by_class, stream.classes(0, test.episodes), splits["test"]),
        picture=_optional("picture", lambda: _picture(algorithm, stream, worst, test.seed), remarks),
        transductive=transductive,
        train=_train_metrics(cell, progress),
        eval=EvalMetrics(
            seconds=watch.seconds,
            episodes_per_second=_rate(test.episodes, watch.seconds),
            batch=batch.size,
            latency_ms=Latency(**latency_ms(algorithm, stream, test.seed, device, test.episodes)),
        ),
        flops_per_episode=_optional("operations", lambda: flops(algorithm, stream, test.seed), remarks),
        peak_memory_bytes=max(memory.bytes(), progress.peak_memory_bytes),
        parameters=sum(parameter.numel() for parameter in algorithm.parameters()),
        remarks=remarks,
    )


def _train_metrics(cell: Cell, progress: TrainingProgress) -> TrainMetrics:
    selection = progress.selections[cell.shape]
    return TrainMetrics(
        steps=cell.train.steps,
        episodes=cell.train.steps * cell.train.meta_batch,
        seconds=progress.seconds,
        episodes_per_second=_rate(progress.timed_steps * cell.train.meta_batch, progress.seconds),
        best_step=selection.best_step,
        validation=[Validation(step=step, accuracy=accuracy) for step, accuracy in selection.validation],
    )


def _optional(name: str, measure: Callable[[], _T], remarks: list[str]) -> _T | None:
    """Return an optional metric; if measuring it fails, None, and add a remark."""
    try:
        return measure()
    except Interrupted:
        raise
    except Exception as error:  # a plugin may raise anything
        remarks.append(f"not measured: {name} ({in_one_line(error)})")
        return None


def _accuracy(accuracies: Floats, groups: IntArray) -> Accuracy:
    return Accuracy(**asdict(mean_interval(accuracies)), data_ci95=DataIntervals(groups).ci95(accuracies))


def _worst_classes(by_class: Floats, classes: IntArray, split: Split) -> list[ClassAccuracy]:
    """Return the classes with the lowest accuracy, worst first."""
    counts = np.bincount(classes.reshape(-1), minlength=split.size.classes)
    sums = np.bincount(classes.reshape(-1), by_class.reshape(-1), minlength=split.size.classes)
    means = np.divide(sums, counts, out=np.ones(len(counts)), where=counts > 0)
    worst = [int(c) for c in np.argsort(means, kind="stable")[:WORST_CLASSES] if means[c] < 1]
    return [ClassAccuracy(name=split.class_names[c], accuracy=float(means[c]), episodes=int(counts[c])) for c in worst]


def _picture(algorithm: Algorithm, stream: EpisodeStream, number: int, seed: int) -> bytes:
    """Return a picture of an episode and its wrong predictions."""
    episode = stream.batch(number, 1)
    predicted = predict(algorithm, episode, seed, number)[0].argmax(dim=-1)
    return episode_png(
        episode.support_x[0].cpu().numpy(),
        episode.support_y[0].tolist(),
        episode.query_x[0].cpu().numpy(),
        episode.query_y[0].tolist(),
        predicted.tolist(),
    )


# ------------------------------------------------------------------------------------------------- helpers


def _rate(count: int, seconds: float) -> float | None:
    """Return episodes per second; None if none was timed (all steps were warm-up)."""
    return count / seconds if count and seconds > 0 else None


@contextmanager
def _memory_advice(cell: Cell) -> Iterator[None]:
    """Turn an out-of-memory error into a `CellFailed` that names settings to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        train = cell.train
        raise CellFailed(
            f"out of memory: lower train.meta_batch ({train.meta_batch}), train.way ({train.shape.way}), "
            f"train.queries ({train.shape.queries}) or the size of the backbone ({cell.backbone.label})"
        ) from error
