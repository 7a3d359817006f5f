"""Trains and tests ONE cell: the only place where an algorithm meets episodes and clocks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from metabench.api import Algorithm, Setup, Split
from metabench.checkpoints import TrainingProgress, load_checkpoint, save_checkpoint
from metabench.configs import validate_config
from metabench.episodes import EpisodeShape, IntArray
from metabench.errors import CellFailed, SuiteError
from metabench.evaluation import (
    evaluate,
    flops,
    inductive_accuracies,
    is_transductive,
    latency_ms,
    predict,
)
from metabench.measure import Stopwatch
from metabench.memory import BatchSize, PeakMemory, is_out_of_memory
from metabench.pictures import episode_png
from metabench.plan import Cell, Training
from metabench.plugins import PluginManager, in_one_line
from metabench.precision import in_precision, tf32
from metabench.record import (
    Accuracy,
    ClassAccuracy,
    EpisodeResults,
    EvalFigures,
    Latency,
    TrainFigures,
    Validation,
)
from metabench.reproducible import derive_seed, deterministic
from metabench.stats import DataIntervals, Floats, mean_interval
from metabench.strategies import strategy_for
from metabench.streams import EpisodeStream
from metabench.watching import Interrupted, Watcher

_T = TypeVar("_T")

#: Steps at the start of a process whose time is not counted: allocators and kernels warm up.
WARM_UP_STEPS = 3
#: Steps between looks at the loss; each look waits for the device.
LOSS_EVERY = 10
#: Classes listed as the worst.
WORST_CLASSES = 10
#: Seconds after which the next look at the loss also writes a checkpoint.
CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """What running a cell yields; see `metabench.record.Record`."""

    accuracy: Accuracy
    inductive_accuracy: Accuracy | None
    episodes: EpisodeResults
    worst_classes: list[ClassAccuracy]
    picture: bytes | None
    transductive: bool
    train: TrainFigures
    eval: EvalFigures
    flops_per_episode: int | None
    peak_memory_bytes: int
    parameters: int
    remarks: list[str]


def build(cell: Cell, image_shape: tuple[int, int, int], device: torch.device, plugins: PluginManager) -> Algorithm:
    """Return the cell's algorithm with its backbone, initialised from the cell's seed."""
    torch.manual_seed(derive_seed(cell.seed, "initialise"))
    backbone_class = plugins.backbone_class(cell.backbone.name)
    algorithm_class = plugins.algorithm_class(cell.algorithm.name)
    backbone = backbone_class(validate_config(backbone_class.Config, cell.backbone.params), image_shape)
    backbone = in_precision(backbone, cell.precision, image_shape)
    setup = Setup(backbone, cell.shape.way, cell.train.shape.way, cell.train.steps)
    algorithm = algorithm_class(validate_config(algorithm_class.Config, cell.algorithm.params), setup)
    algorithm.strategy = strategy_for(device, algorithm.functional, algorithm.inner_loop)
    # On a CPU, convolutions of channels-last weights run up to three times faster.
    layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
    return algorithm.to(device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def check(cell: Cell, splits: Mapping[str, Split], plugins: PluginManager) -> None:
    """Build the cell's algorithm and throw it away, to hear its objections before anything is run.

    Raises:
        SuiteError: the backbone or the algorithm refuses the cell (a `ValueError` of its constructor).
    """
    with torch.random.fork_rng(devices=[]):
        try:
            build(cell, image_shape_of(splits), torch.device("cpu"), plugins)
        except ValueError as error:
            raise SuiteError(f"{cell.title}: {error}") from error
        except Exception:  # a fault of the plugin: it is met again when the cell runs, which then fails alone
            return


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
) -> Outcome:
    """Train a cell, or go on from its checkpoint, and test it.

    Args:
        cell: what to run.
        splits: ``train``, ``val`` and ``test`` of its dataset.
        device: where everything runs.
        plugins: who provides the classes.
        checkpoint: the file to resume from and to write; the same result comes out, wherever it was cut.
        watcher: sees the progress.
        origin: what else the figures depend on (device, data, versions); a checkpoint of another is not used.

    Raises:
        CellFailed: the loss or the scores are not finite, or the memory is too small.
        Interrupted: `watcher` asked for it.
        StoreError: a checkpoint cannot be written or read.
    """
    origin = origin or {}
    memory = PeakMemory(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), deterministic(), tf32(cell.precision == "tf32"), _explained_memory(cell):
        algorithm = build(cell, image_shape_of(splits), device, plugins)
        train = _train(cell, algorithm, splits, device, checkpoint, origin, watcher)
        return _test(cell, algorithm, splits, device, train, memory, watcher)


# ------------------------------------------------------------------------------------------------ training


def _train(
    cell: Cell,
    algorithm: Algorithm,
    splits: Mapping[str, Split],
    device: torch.device,
    checkpoint: Path,
    origin: Mapping[str, str],
    watcher: Watcher,
) -> TrainFigures:
    """Train to the end, then load the weights that did best on the validation split."""
    train = cell.train
    stream = training_stream(cell, splits, device)
    val_stream = _stream(cell, splits, "val", cell.shape, cell.test.seed, device)
    progress = load_checkpoint(algorithm, checkpoint, origin) or TrainingProgress()
    batch = BatchSize(device, cell.test.batch)
    watch = Stopwatch(device, progress.seconds)
    warm = progress.step + WARM_UP_STEPS
    saved = time.monotonic()
    watcher.phase("train", train.steps, progress.step)
    try:
        while True:
            if _validation_is_due(progress, train):
                watcher.phase("validate", train.validation_episodes)
                accuracies = evaluate(algorithm, val_stream, train.validation_episodes, batch, cell.test.seed, watcher)
                _note_validation(progress, algorithm, float(accuracies.mean()))
                watcher.phase("train", train.steps, progress.step)
            if progress.step == train.steps:
                break
            first, timed = progress.step, progress.step >= warm
            until = min(_next_pause(first, train.validate_every, train.steps), train.steps if timed else warm)
            with (watch if timed else Stopwatch(device)).running():
                loss = _meta_steps(cell, algorithm, stream, progress, until, watcher)
            progress.timed_steps += (progress.step - first) * timed
            progress.seconds = watch.seconds
            if not np.isfinite(loss):
                raise CellFailed(
                    f"training diverged: the loss is {loss} after step {progress.step} of {train.steps}. "
                    "Lower the learning rates, or clip the gradient"
                )
            best = f", val {progress.best_accuracy:.1%}" if progress.validation else ""
            watcher.advance(progress.step, f"loss {loss:.3f}{best}")
            if watcher.should_stop():
                raise Interrupted
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save_checkpoint(algorithm, progress, origin, checkpoint)
                saved = time.monotonic()
    except Interrupted:
        save_checkpoint(algorithm, progress, origin, checkpoint)
        raise
    save_checkpoint(algorithm, progress, origin, checkpoint)
    algorithm.load_state_dict(progress.best_state)
    return TrainFigures(
        steps=train.steps,
        episodes=train.steps * train.meta_batch,
        seconds=progress.seconds,
        episodes_per_second=_rate(progress.timed_steps * train.meta_batch, progress.seconds),
        best_step=progress.best_step,
        validation=[Validation(step=step, accuracy=accuracy) for step, accuracy in progress.validation],
    )


def _validation_is_due(progress: TrainingProgress, train: Training) -> bool:
    """Return whether the present weights are to be validated, and have not been."""
    step = progress.step
    due = step > 0 and (step % train.validate_every == 0 or step == train.steps)
    return due and step not in (validated for validated, _ in progress.validation)


def _next_pause(step: int, validate_every: int, steps: int) -> int:
    """Return the step after `step` at which the loss is looked at, or the algorithm validated."""
    return min(steps, *((step // every + 1) * every for every in (LOSS_EVERY, validate_every)))


def _meta_steps(
    cell: Cell,
    algorithm: Algorithm,
    stream: EpisodeStream,
    progress: TrainingProgress,
    until: int,
    watcher: Watcher,
) -> float:
    """Make the outer updates up to `until`, or fewer where the user wants to stop; return the last loss.

    No result is read back from the device within the loop.
    """
    algorithm.train()
    batch = cell.train.meta_batch
    loss = torch.zeros(())
    while progress.step < until:
        # A step starts from a seed of its own, so that it is the same step after a resume.
        torch.manual_seed(derive_seed(cell.seed, f"train {progress.step}"))
        loss = algorithm.meta_step(stream.batch(progress.step * batch, batch))["loss"]
        progress.step += 1
        watcher.advance(progress.step)
        if watcher.should_stop():
            break
    return float(loss)


def _note_validation(progress: TrainingProgress, algorithm: Algorithm, accuracy: float) -> None:
    """Keep the accuracy, and the weights where it is the best so far (the later of two equals)."""
    progress.validation.append((progress.step, accuracy))
    if accuracy >= progress.best_accuracy:
        progress.best_accuracy, progress.best_step = accuracy, progress.step
        progress.best_state = copy.deepcopy(algorithm.state_dict())


# ------------------------------------------------------------------------------------------------- testing


def _test(
    cell: Cell,
    algorithm: Algorithm,
    splits: Mapping[str, Split],
    device: torch.device,
    train: TrainFigures,
    memory: PeakMemory,
    watcher: Watcher,
) -> Outcome:
    test = cell.test
    stream = evaluation_stream(cell, splits, device)
    watcher.phase("test", test.episodes)
    batch = BatchSize(device, test.batch, most=test.episodes)
    batch.fit(lambda size: predict(algorithm, stream.batch(0, size), test.seed, 0))  # warm-up, not counted
    watch = Stopwatch(device)
    with watch.running():
        by_class = evaluate(algorithm, stream, test.episodes, batch, test.seed, watcher)
    accuracies = by_class.mean(axis=1)
    groups = stream.groups(0, test.episodes)
    accuracy = _accuracy(accuracies, groups)
    transductive = is_transductive(algorithm, stream, test.seed)
    remarks: list[str] = []

    def alone() -> Accuracy:
        watcher.phase("test inductively", test.inductive_episodes)
        found = inductive_accuracies(algorithm, stream, test.inductive_episodes, batch, test.seed, watcher)
        return _accuracy(found, groups[: len(found)])

    inductive = _optional("accuracy of queries that are alone", alone, remarks) if transductive else accuracy
    worst = int(accuracies.argmin())
    return Outcome(
        accuracy=accuracy,
        inductive_accuracy=inductive,
        episodes=EpisodeResults(accuracies, groups),
        worst_classes=_worst_classes(by_class, stream.classes(0, test.episodes), splits["test"]),
        picture=_optional("picture", lambda: _picture(algorithm, stream, worst, test.seed), remarks),
        transductive=transductive,
        train=train,
        eval=EvalFigures(
            seconds=watch.seconds,
            episodes_per_second=_rate(test.episodes, watch.seconds),
            batch=batch.size,
            latency_ms=Latency(**latency_ms(algorithm, stream, test.seed, device)),
        ),
        flops_per_episode=_optional("operations", lambda: flops(algorithm, stream, test.seed), remarks),
        peak_memory_bytes=memory.bytes(),
        parameters=sum(parameter.numel() for parameter in algorithm.parameters()),
        remarks=remarks,
    )


def _optional(what: str, measure: Callable[[], _T], remarks: list[str]) -> _T | None:
    """Return a measurement that a tested cell can do without; where it fails, None, with a remark why."""
    try:
        return measure()
    except Interrupted:
        raise
    except Exception as error:  # a plugin may raise anything
        remarks.append(f"not measured: {what} ({in_one_line(error)})")
        return None


def _accuracy(accuracies: Floats, groups: IntArray) -> Accuracy:
    return Accuracy(**asdict(mean_interval(accuracies)), data_ci95=DataIntervals(groups).ci95(accuracies))


def _worst_classes(by_class: Floats, classes: IntArray, split: Split) -> list[ClassAccuracy]:
    """Return the classes with the lowest accuracy over all their episodes, the worst first."""
    counts = np.bincount(classes.reshape(-1), minlength=split.size.classes)
    sums = np.bincount(classes.reshape(-1), by_class.reshape(-1), minlength=split.size.classes)
    means = np.divide(sums, counts, out=np.ones(len(counts)), where=counts > 0)
    worst = [int(c) for c in np.argsort(means, kind="stable")[:WORST_CLASSES] if means[c] < 1]
    return [ClassAccuracy(name=split.class_names[c], accuracy=float(means[c]), episodes=int(counts[c])) for c in worst]


def _picture(algorithm: Algorithm, stream: EpisodeStream, number: int, seed: int) -> bytes:
    """Return a picture of an episode and its wrong predictions."""
    drawn = stream.batch(number, 1)
    predicted = predict(algorithm, drawn, seed, number)[0].argmax(dim=-1)
    return episode_png(
        drawn.support_x[0].cpu().numpy(),
        drawn.support_y[0].tolist(),
        drawn.query_x[0].cpu().numpy(),
        drawn.query_y[0].tolist(),
        predicted.tolist(),
    )


# ------------------------------------------------------------------------------------------------- helpers


def training_stream(cell: Cell, splits: Mapping[str, Split], device: torch.device) -> EpisodeStream:
    """Return the training episodes of a cell."""
    return _stream(cell, splits, "train", cell.train.shape, cell.seed, device)


def evaluation_stream(cell: Cell, splits: Mapping[str, Split], device: torch.device) -> EpisodeStream:
    """Return the test episodes of a cell: the same for every algorithm, backbone and training seed."""
    return _stream(cell, splits, "test", cell.shape, cell.test.seed, device)


def _stream(
    cell: Cell, splits: Mapping[str, Split], name: str, shape: EpisodeShape, seed: int, device: torch.device
) -> EpisodeStream:
    # The name says what the images are, not who learns from them: all algorithms see the same episodes.
    stream = f"{cell.dataset.name}|{sorted(cell.dataset.params.items())}|{name}"
    return EpisodeStream(splits[name], shape, stream, seed, device)


def _rate(count: int, seconds: float) -> float | None:
    """Return a rate, or None where nothing was timed (a training as short as its warm-up)."""
    return count / seconds if count and seconds > 0 else None


@contextmanager
def _explained_memory(cell: Cell) -> Iterator[None]:
    """Turn running out of memory into a `CellFailed` that names what to lower."""
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
