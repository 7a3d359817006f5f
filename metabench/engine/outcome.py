"""Test a trained algorithm: the outcome of one cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from metabench.analysis.calibration import fit_temperature
from metabench.analysis.estimates import estimate_of_mean, estimates
from metabench.analysis.metrics import OF_TASK, Collector, Measure, class_accuracies, remarks_on
from metabench.analysis.shift import measures_of_shift
from metabench.analysis.stats import DataIntervals, Floats, Ints, mean_interval
from metabench.analysis.tally import Tally
from metabench.api import Algorithm, Classification, SourceSplit, Split, trained_weights
from metabench.data.sampler import EpisodeShape, IntArray
from metabench.engine.asking import predict
from metabench.engine.controls import (
    SHUFFLED_EPISODES,
    check_batch_independence,
    check_shuffled_labels,
    is_transductive,
)
from metabench.engine.costs import flops, latencies
from metabench.engine.curves import curves_png
from metabench.engine.evaluation import answers, in_batches, inductive_accuracies, measure
from metabench.engine.features import embedded_once
from metabench.engine.pictures import episode_png
from metabench.engine.progress import Interrupted, TimeLimit, Watcher
from metabench.engine.rollouts import RolloutTest
from metabench.engine.shift import figures_of_shift
from metabench.engine.sources import SourceStream
from metabench.engine.streams import Stream, evaluation_stream, validation_stream
from metabench.errors import in_one_line
from metabench.machine.clock import Stopwatch
from metabench.machine.memory import BatchSize, PeakMemory
from metabench.planning.cells import Cell, Selection, Testing
from metabench.planning.fitting import fits
from metabench.records.measured import ClassAccuracy, Declaration, EngineCost, Estimate, Temperature
from metabench.records.record import EpisodeResults
from metabench.records.stages import EvalMetrics, Latency, TrainMetrics, Weights
from metabench.records.tallies import Tallies
from metabench.records.trained import SnapshotFile, Trained

_T = TypeVar("_T")

#: Number of classes listed as the worst.
WORST_CLASSES = 10
#: Most validation episodes that the temperature is fitted on: 7 500 queries of 5 ways determine it to a few percent.
CALIBRATION_EPISODES = 100


@dataclass(frozen=True)
class SelectedWeights:
    """The weights that a cell tests.

    Attributes:
        name: name of the snapshot.
        wanted: the selection of the cell; another snapshot than its own is the nearest kept one.
        snapshot: the snapshot.
    """

    name: str
    wanted: Selection
    snapshot: SnapshotFile

    @property
    def recorded(self) -> Weights:
        """Return the weights as a record names them."""
        return Weights(file=self.snapshot.file, sha256=self.snapshot.sha256, selected_for=self.selected_for)

    @property
    def selected_for(self) -> str:
        """Return the other episodes by which the weights were selected; empty for those of the cell."""
        if self.name == self.wanted.name:
            return ""
        shape = self.snapshot.shape
        if shape is None:
            return "nothing: the last weights"
        return str(Selection(EpisodeShape(*shape), self.snapshot.params))


@dataclass(frozen=True)
class Outcome:
    """The results of a cell; fields as in `metabench.records.record.Record`.

    Attributes:
        episodes: the per-episode results.
        picture: PNG of the worst episode; None if it could not be drawn.
    """

    ranked_by: str
    metrics: dict[str, Estimate | None]
    declarations: dict[str, Declaration]
    temperature: Temperature | None
    inductive_accuracy: Estimate | None
    episodes: EpisodeResults
    worst_classes: list[ClassAccuracy]
    picture: bytes | None
    transductive: bool
    train: TrainMetrics | None
    weights: Weights | None
    eval: EvalMetrics
    flops_per_episode: int | None
    peak_memory_bytes: int | None
    parameters: int
    all_parameters: int
    remarks: list[str]
    pretrained_on: str = ""
    chance: float | None = None
    costs: Mapping[str, EngineCost] = field(default_factory=dict)

    @property
    def primary(self) -> Estimate:
        """Return the estimate of the metric that ranks."""
        estimate = self.metrics[self.ranked_by]
        assert estimate is not None, "every cell that is ok has it"
        return estimate


def test(
    cell: Cell,
    algorithm: Algorithm,
    splits: Mapping[str, Split | SourceSplit],
    device: torch.device,
    trained: Trained | None,
    weights: SelectedWeights | None,
    memory: PeakMemory,
    watcher: Watcher,
    earlier: EpisodeResults | None,
    measures: Sequence[Measure],
) -> Outcome:
    """Test a trained algorithm.

    Args:
        cell: the cell.
        algorithm: the algorithm with its selected weights.
        splits: the splits of its dataset.
        device: the device that it runs on.
        trained: its finished training; None if nothing was trained.
        weights: its weights; None if nothing was trained.
        memory: the peak memory since the algorithm was built.
        watcher: sees the progress, and may ask to stop.
        earlier: results of the first episodes, which are not tested again if they have all metrics.
        measures: the metrics to compute.

    Raises:
        CellFailed: a score is NaN or +inf, the time limit is over, or the answers depend on more than their episode.
        Interrupted: `watcher` asked to stop.
    """
    settings = cell.test
    watcher = watcher if settings.time_limit is None else TimeLimit(watcher, settings.time_limit)
    embedded, watch = embedded_once(splits, algorithm, cell.shape.images, device, watcher), Stopwatch(device)
    # The features of a trained backbone are part of its test; others are kept for all tests.
    with nullcontext() if embedded is splits else watch.running():
        stream = evaluation_stream(cell, embedded, device)
    batch = BatchSize(device, stream.at_once if stream.varies else settings.batch or stream.at_once)
    classified, ranking = isinstance(stream.task, Classification), OF_TASK[stream.task.kind][0]
    by_label = classified and not stream.varies
    temperature = _temperature(cell, algorithm, splits, device, watcher) if classified else None
    batch.fit(lambda size: predict(algorithm, stream.batch(0, size), settings.seed, 0))  # warm-up, not timed
    rolled = RolloutTest(algorithm, stream, settings.seed, watcher)
    measures, computed = [*measures, *rolled.measures, *measures_of_shift(settings)], measures
    known = earlier if earlier is not None and _has_all(earlier, measures, by_label) else None
    by_class = (
        np.empty((0, cell.shape.way if by_label else 1)) if known is None else _values_by_class(known, ranking.name)
    )
    kept = known.outputs if known else None
    tested = len(by_class)
    tally = Tally(_class_names(splits["test"]), stream.classes, tested) if by_label else None
    collector = Collector(computed, temperature.value if temperature else None, tally)
    ranked = rolled.begin(known.figures if known else {}, ranking)
    while len(by_class) < (wanted := wanted_episodes(rolled.ranking_values(by_class.mean(axis=1)), settings)):
        rolled.extend(len(by_class), wanted)
        watcher.phase("test", wanted, len(by_class))
        with watch.running():
            more, outputs = measure(
                algorithm,
                stream,
                wanted,
                batch,
                settings.seed,
                collector,
                settings.keep_outputs,
                watcher,
                len(by_class),
            )
        by_class = np.concatenate([by_class, more])
        kept = kept.followed_by(outputs) if kept and outputs else kept or outputs
    episodes = len(by_class)
    groups = stream.groups(0, episodes)
    shifted, problems = figures_of_shift(settings, algorithm, stream, batch, watcher, tested, episodes)
    with watch.running():
        figures = {**collector.figures(), **rolled.figures(), **shifted}
        if known is not None:
            figures = {name: np.concatenate([known.figures[name], values]) for name, values in figures.items()}
        metrics = estimates(figures, groups, measures)
    values = figures[ranked.name]
    primary = metrics[ranked.name]
    transductive = _controlled(algorithm, stream, settings.seed, batch, watcher)
    size = algorithm.backbone.input.remark(stream.image_shape)
    remarks = [*remarks_on({**collector.problems, **problems}), *([size] if size else []), *_remarks(values, stream)]
    remarks += _remarks_on_training(cell, trained, weights)

    # What a learner does is not measured with each query on its own.
    tests_alone = transductive and ranked is ranking
    known_alone = earlier.alone if earlier and earlier.alone is not None else np.empty(0)
    alone = (
        _optional(
            f"inductive {ranking.declaration.title}",
            lambda: _tested_alone(algorithm, stream, settings, batch, watcher, known_alone),
            remarks,
        )
        if tests_alone
        else None
    )
    # The queries of a method that is not transductive are alone anyway.
    inductive_accuracy = None if transductive else primary
    if alone is not None:
        inductive_accuracy = estimate_of_mean(alone, DataIntervals(groups[: len(alone)]))
    worst = int((ranked.declaration.sign * values).argmin())
    timed = latencies(algorithm, stream, settings.seed, device, episodes)
    return Outcome(
        ranked_by=ranked.name,
        metrics=metrics,
        declarations={measure.name: measure.declaration for measure in measures},
        temperature=temperature,
        inductive_accuracy=inductive_accuracy,
        episodes=EpisodeResults(figures, groups, alone, by_class if by_label else None, kept, _tallies(tally, known)),
        # Where classes have different numbers of queries, their figures are no accuracies.
        worst_classes=[]
        if cell.shape.dirichlet is not None or stream.varies
        else _worst_classes(by_class, stream.classes(0, episodes), splits["test"]),
        picture=_optional(
            "picture",
            lambda: _picture(algorithm, stream, worst, settings.seed, _class_names(splits["test"])),
            remarks,
        ),
        transductive=transductive,
        train=_train_metrics(cell, trained, weights) if trained and weights else None,
        weights=weights.recorded if weights else None,
        eval=EvalMetrics(
            seconds=watch.seconds,
            episodes_per_second=_rate(episodes - tested, watch.seconds),
            batch=batch.size,
            latency_ms=Latency(**timed.whole),
            adapt_ms=Latency(**timed.adapt) if timed.adapt else None,
            answer_ms=Latency(**timed.answer) if timed.answer else None,
        ),
        flops_per_episode=None  # that of one episode would be of its size
        if stream.varies
        else _optional("operations", lambda: flops(algorithm, stream, settings.seed), remarks),
        peak_memory_bytes=max(memory.bytes(), trained.peak_memory_bytes if trained else 0) or None,
        parameters=sum(parameter.numel() for parameter in trained_weights(algorithm).values()),
        all_parameters=sum(parameter.numel() for parameter in algorithm.parameters()),
        remarks=remarks,
        pretrained_on=algorithm.backbone.pretrained_on,
        chance=float(stream.chances(0, episodes).mean()) if classified else None,
        costs=rolled.costs(),
    )


def _tested_alone(
    algorithm: Algorithm, stream: Stream, settings: Testing, batch: BatchSize, watcher: Watcher, known: Floats
) -> Floats:
    """Return the metric of answers where each query is predicted on its own, of known and further episodes."""
    count = settings.inductive_episodes
    if len(known) >= count:
        return known
    watcher.phase("test inductively", count, len(known))
    more = inductive_accuracies(algorithm, stream, count, batch, settings.seed, watcher, first=len(known))
    return np.concatenate([known, more])


def _controlled(algorithm: Algorithm, stream: Stream, seed: int, batch: BatchSize, watcher: Watcher) -> bool:
    """Control a test, and return whether the algorithm is transductive; a regression has no labels to shuffle.

    Raises:
        CellFailed: the answers depend on more than their episode.
        Interrupted: `watcher` asked to stop.
    """
    check_batch_independence(algorithm, stream, seed, batch)
    if isinstance(stream.task, Classification):
        watcher.phase("test with shuffled labels", SHUFFLED_EPISODES)
        check_shuffled_labels(algorithm, stream, seed, batch, watcher)
    return is_transductive(algorithm, stream, seed, batch)


def _class_names(split: Split | SourceSplit) -> Sequence[str]:
    """Return the names of the classes of a split; none of a source."""
    return [] if isinstance(split, SourceSplit) else split.class_names


def _tallies(tally: Tally | None, known: EpisodeResults | None) -> Tallies | None:
    """Return the totals of all episodes; None where those of earlier episodes were not counted."""
    if tally is None or (known is not None and known.tallies is None):
        return None
    return tally.tallies() if known is None or known.tallies is None else known.tallies.followed_by(tally.tallies())


def _values_by_class(results: EpisodeResults, ranked_by: str) -> Floats:
    """Return the accuracies of earlier results, as `metabench.engine.evaluation.by_class`."""
    return results.figures[ranked_by][:, None] if results.by_class is None else results.by_class


def wanted_episodes(accuracies: Floats, settings: Testing) -> int:
    """Return the number of test episodes that a cell wants.

    With `Testing.until_ci95`, it grows by `Testing.episodes` as long as the interval over episodes is too wide. Only
    the width decides, never a difference or a p-value.

    Args:
        accuracies: accuracies of the first episodes.
        settings: the test.
    """
    done, most = len(accuracies), settings.at_most
    if settings.until_ci95 is None or most is None:
        return max(done, settings.episodes)
    if done < settings.episodes:
        return settings.episodes
    if done >= most or mean_interval(accuracies).ci95 <= settings.until_ci95:
        return done
    return min(most, (done // settings.episodes + 1) * settings.episodes)


def _train_metrics(cell: Cell, trained: Trained, weights: SelectedWeights) -> TrainMetrics:
    schedule = cell.training.schedule
    assert schedule is not None, "a finished training has a schedule"
    rate = _rate(trained.timed_steps * schedule.batch, trained.seconds)
    return TrainMetrics(
        steps=trained.step,
        episodes=trained.step * schedule.batch if schedule.shape else 0,
        images=0 if schedule.shape else trained.step * schedule.batch,
        seconds=trained.seconds,
        episodes_per_second=rate if schedule.shape else None,
        images_per_second=None if schedule.shape else rate,
        best_step=weights.snapshot.step,
        validation=weights.snapshot.validation,
        timed=schedule.seconds is not None,
        usage=trained.usage,
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


def _has_all(earlier: EpisodeResults, measures: Sequence[Measure], by_label: bool) -> bool:
    """Return whether earlier results can be continued: they have all metrics, for all their episodes."""
    lengths = {len(earlier.figures.get(measure.name, ())) for measure in measures}
    if by_label:
        return earlier.by_class is not None and lengths == {len(earlier.by_class)}
    return len(lengths) == 1 and 0 not in lengths


def _temperature(
    cell: Cell,
    algorithm: Algorithm,
    splits: Mapping[str, Split | SourceSplit],
    device: torch.device,
    watcher: Watcher,
) -> Temperature | None:
    """Return the temperature of the tested weights; it sees no test episode.

    Returns:
        The temperature; None where the validation split of a cell that trains nothing is too small for its episodes,
        or a validation query's true class has the score -inf.

    Raises:
        CellFailed: a score is NaN or +inf.
        Interrupted: `watcher` asked to stop.
    """
    schedule, shape = cell.training.schedule, cell.selection.shape
    if schedule is None and not fits(shape, splits):
        return None
    episodes, seed = CALIBRATION_EPISODES, 0
    if schedule is not None:
        episodes, seed = min(schedule.validation_episodes, CALIBRATION_EPISODES), schedule.validation_seed
    stream = validation_stream(seed, splits, shape, device)
    watcher.phase("calibrate", episodes)
    parts: list[tuple[Floats, Ints]] = []

    def accuracies(first: int, count: int) -> Floats:
        parts.append(answers(algorithm, stream, seed, first, count))
        return class_accuracies(*parts[-1])

    in_batches(accuracies, episodes, BatchSize(device, cell.test.batch or stream.at_once), watcher)
    value = fit_temperature(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return None if value is None else Temperature(value=value, episodes=episodes)


def _remarks(accuracies: Floats, stream: Stream) -> list[str]:
    """Return remarks on accuracies that are more likely a fault than a result; none on a regression."""
    if not isinstance(stream.task, Classification):
        return []
    chances = stream.chances(0, len(accuracies))
    mean, chance = float(accuracies.mean()), float(chances.mean())
    error = float(accuracies.std(ddof=1)) / len(accuracies) ** 0.5
    if (accuracies == 1).all():
        return ["every query of every episode is right: ± 0.00 is no interval, more or harder episodes are needed"]
    if np.allclose(accuracies, chances, rtol=0, atol=1e-9):
        return ["every episode is at chance exactly: all scores of a query tie, or all queries get the same label"]
    if mean < 0.8 * chance and chance - mean > 5 * error:
        return [
            f"the accuracy is far below chance ({chance:.1%}): the largest score is the prediction, not the smallest"
        ]
    return []


def _remarks_on_training(cell: Cell, trained: Trained | None, weights: SelectedWeights | None) -> list[str]:
    """Return remarks on weights that do not follow from the settings of the cell alone."""
    schedule, remarks = cell.training.schedule, []
    if weights and weights.selected_for:
        remarks.append(f"the weights were selected for {weights.selected_for}")
    if trained and schedule and schedule.seconds is not None:
        remarks.append(f"train.seconds ended the training at step {trained.step}: the result depends on the machine")
    return remarks


def _worst_classes(by_class: Floats, classes: IntArray, split: Split | SourceSplit) -> list[ClassAccuracy]:
    """Return the classes with the lowest accuracy, worst first; none of a source."""
    if isinstance(split, SourceSplit):
        return []
    counts = np.bincount(classes.reshape(-1), minlength=split.size.classes)
    sums = np.bincount(classes.reshape(-1), by_class.reshape(-1), minlength=split.size.classes)
    means = np.divide(sums, counts, out=np.ones(len(counts)), where=counts > 0)
    worst = [int(c) for c in np.argsort(means, kind="stable")[:WORST_CLASSES] if means[c] < 1]
    return [ClassAccuracy(name=split.class_names[c], accuracy=float(means[c]), episodes=int(counts[c])) for c in worst]


def _picture(algorithm: Algorithm, stream: Stream, number: int, seed: int, names: Sequence[str]) -> bytes | None:
    """Return a picture of an episode and its wrong predictions, or of fitted curves; None of other vectors."""
    if isinstance(stream, SourceStream):
        return curves_png(algorithm, stream, (0, 1, number), seed)
    if len(stream.image_shape) == 1:
        return None
    predicted = predict(algorithm, stream.batch(number, 1), seed, number)[0].argmax(dim=-1)
    episode = stream.images.batch(number, 1)
    return episode_png(
        episode.support_x[0].cpu().numpy(),
        episode.support_y[0].tolist(),
        episode.query_x[0].cpu().numpy(),
        episode.query_y[0].tolist(),
        predicted.tolist(),
        [names[of_label] for of_label in stream.classes(number, 1)[0]],
    )


def _rate(count: int, seconds: float) -> float | None:
    """Return episodes per second; None if none was timed (all steps were warm-up)."""
    return count / seconds if count and seconds > 0 else None
