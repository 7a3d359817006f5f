"""Train and test one cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from metabench.analysis.stats import DataIntervals, Floats, mean_interval
from metabench.api import Algorithm, Setup, Split, trained_weights
from metabench.data.sampler import EpisodeShape, IntArray
from metabench.engine.advice import testing_memory, training_memory
from metabench.engine.asking import predict
from metabench.engine.checkpoints import TrainingProgress
from metabench.engine.controls import (
    SHUFFLED_EPISODES,
    check_batch_independence,
    check_shuffled_labels,
    is_transductive,
)
from metabench.engine.costs import flops, latencies
from metabench.engine.evaluation import evaluate, inductive_accuracies
from metabench.engine.pictures import episode_png
from metabench.engine.precision import autocast_of, tf32
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.streams import EpisodeStream, evaluation_stream, training_stream
from metabench.engine.training import train
from metabench.engine.trial import set_batchings
from metabench.errors import in_one_line
from metabench.machine.clock import Stopwatch
from metabench.machine.memory import BatchSize, PeakMemory
from metabench.machine.reproducible import derive_seed, deterministic, seed_generators
from metabench.planning.plan import Cell, check_cell, fits
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
    peak_memory_bytes: int | None
    parameters: int
    all_parameters: int
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
        CellFailed: a split is too small, the loss or a score is not finite, or memory is too small.
        Interrupted: `watcher` asked to stop.
        StoreError: a checkpoint cannot be written or read.
    """
    check_cell(cell, splits)
    origin = origin or {}
    memory = PeakMemory(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), deterministic(), tf32(cell.precision == "tf32"):
        with training_memory(cell):
            algorithm = build(cell, image_shape_of(splits), device, plugins)
            set_batchings(algorithm, training_stream(cell, splits, device).batch(0, min(2, cell.train.meta_batch)))
            # A cell that the data is too small for fails alone.
            shapes = [shape for shape in shapes or [cell.shape] if fits(shape, splits)]
            progress = train(cell, algorithm, splits, device, checkpoint, origin, shapes, memory, watcher)
        with testing_memory(cell):
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
    check_batch_independence(algorithm, stream, test.seed, batch)
    watcher.phase("test with shuffled labels", SHUFFLED_EPISODES)
    check_shuffled_labels(algorithm, stream, test.seed, batch, watcher)
    transductive = is_transductive(algorithm, stream, test.seed, batch)
    remarks = _remarks(accuracies, cell.shape.way)

    def test_inductively() -> Floats:
        watcher.phase("test inductively", test.inductive_episodes)
        return inductive_accuracies(algorithm, stream, test.inductive_episodes, batch, test.seed, watcher)

    alone = _optional("inductive accuracy", test_inductively, remarks) if transductive else None
    # The queries of a method that is not transductive are alone anyway.
    inductive_accuracy = None if transductive else accuracy
    if alone is not None:
        inductive_accuracy = _accuracy(alone, groups[: len(alone)])
    worst = int(accuracies.argmin())
    timed = latencies(algorithm, stream, test.seed, device, test.episodes)
    return Outcome(
        accuracy=accuracy,
        inductive_accuracy=inductive_accuracy,
        episodes=EpisodeResults(accuracies, groups, alone),
        worst_classes=_worst_classes(by_class, stream.classes(0, test.episodes), splits["test"]),
        picture=_optional("picture", lambda: _picture(algorithm, stream, worst, test.seed), remarks),
        transductive=transductive,
        train=_train_metrics(cell, progress),
        eval=EvalMetrics(
            seconds=watch.seconds,
            episodes_per_second=_rate(test.episodes, watch.seconds),
            batch=batch.size,
            latency_ms=Latency(**timed.whole),
            adapt_ms=Latency(**timed.adapt) if timed.adapt else None,
            answer_ms=Latency(**timed.answer) if timed.answer else None,
        ),
        flops_per_episode=_optional("operations", lambda: flops(algorithm, stream, test.seed), remarks),
        peak_memory_bytes=max(memory.bytes(), progress.peak_memory_bytes) or None,
        parameters=sum(parameter.numel() for parameter in trained_weights(algorithm).values()),
        all_parameters=sum(parameter.numel() for parameter in algorithm.parameters()),
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


def _remarks(accuracies: Floats, way: int) -> list[str]:
    """Return remarks on accuracies that are more likely a fault than a result."""
    mean, chance = float(accuracies.mean()), 1 / way
    error = float(accuracies.std(ddof=1)) / len(accuracies) ** 0.5
    if (accuracies == 1).all():
        return ["every query of every episode is right: ± 0.00 is no interval, more or harder episodes are needed"]
    if np.allclose(accuracies, chance, rtol=0, atol=1e-9):
        return ["every episode is at chance exactly: all scores of a query tie, or all queries get the same label"]
    if mean < 0.8 * chance and chance - mean > 5 * error:
        return [
            f"the accuracy is far below chance ({chance:.1%}): the largest score is the prediction, not the smallest"
        ]
    return []


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
