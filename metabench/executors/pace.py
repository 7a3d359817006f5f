"""Time a few steps and episodes of a setup."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from metabench.api import Algorithm, Backbone, SourceSplit, Split
from metabench.engine.asking import predict, predict_alone
from metabench.engine.controls import is_transductive
from metabench.engine.evaluation import queries_alone
from metabench.engine.feature_store import FeatureStore
from metabench.engine.features import ImaginedFeatures, is_embedded_once, may_embed_once, seconds_to_embed
from metabench.engine.learner import build, build_tested, computing
from metabench.engine.outcome import CALIBRATION_EPISODES
from metabench.engine.scaling import scaled
from metabench.engine.steps import training_batches
from metabench.engine.streams import Stream, evaluation_stream, training_stream
from metabench.engine.subsets import splits_of
from metabench.engine.trial import set_batchings
from metabench.errors import SuiteError, Unfit
from metabench.machine.clock import Stopwatch
from metabench.machine.memory import BatchSize
from metabench.planning.cells import Cell, Training
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager

#: Number of episodes timed at once, where their stream does not say.
_AT_ONCE = 4
#: Seconds of an episode above which only one is timed, not several.
_SLOW = 0.5
#: Approximate number of episodes of a test for transduction and latency.
_PROBED = 50


@dataclass(frozen=True)
class Pace:
    """Seconds that a setup takes.

    Attributes:
        step: seconds of an outer update.
        validation_episode: seconds to adapt to a validation episode and predict its queries.
        test_episode: the same of a test episode, from features where the test split is embedded once.
        alone: seconds to predict the first query of each class on its own; 0 for inductive methods.
        embedding: seconds to embed the test split.
        embedded_by: what all cells have in common that read the same features; None for features of a cell's own.
    """

    step: float = 0.0
    validation_episode: float = 0.0
    test_episode: float = 0.0
    alone: float = 0.0
    embedding: float = 0.0
    embedded_by: str | None = None

    def seconds(self, cell: Cell, steps: int, trained: bool, weights: bool) -> float:
        """Return the expected seconds of a cell.

        Args:
            cell: a cell of this setup.
            steps: number of outer updates of its training.
            trained: whether another cell has trained its weights.
            weights: whether an earlier run has kept its weights.
        """
        schedule, test = cell.training.schedule, cell.test
        training, validations = 0.0, 0
        calibrated = 0 if test.task == "regression" else CALIBRATION_EPISODES
        if schedule is not None and not weights:
            training = 0.0 if trained else steps * self.step
            training = min(training, schedule.seconds or training)
            validations = -(-steps // schedule.validate_every) * schedule.validation_episodes
        validating = (validations + calibrated) * self.validation_episode
        testing = (test.episodes + _PROBED) * self.test_episode + test.inductive_episodes * self.alone
        return training + validating + testing


def timed(
    cell: Cell,
    trained_on: Mapping[str, Split | SourceSplit],
    tested_on: Mapping[str, Split | SourceSplit],
    device: torch.device,
    plugins: PluginManager,
    embeddings: dict[str, float],
) -> Pace | None:
    """Return the pace of a cell's setup; None if it fails, as the cell then will, with its reason.

    Features are imagined where a test reads those of a backbone that stays as it is: to embed one episode may take
    longer than its test. The seconds of embedding a split are measured once, and kept in `embeddings`.

    A setup that does not fit takes no time: its cells are skipped.

    Raises:
        SuiteError: the algorithm or the backbone refuses the cell.
    """
    training, schedule = cell.training, cell.training.schedule
    with computing(training, device):
        try:
            trained_on = splits_of(training, trained_on)
            algorithm = build(training, trained_on, device, plugins)
            tested = algorithm if cell.is_trained_by_itself else build_tested(cell, trained_on, device, plugins)
            trained_on, tested_on = (scaled(splits, algorithm.backbone) for splits in (trained_on, tested_on))
        except Unfit:
            return Pace()
        except ValueError as error:
            raise SuiteError(f"{cell.title}: {error}") from error
        except Exception:  # a plugin may raise anything
            return None
        shared = _features_of(cell, tested, tested_on["test"])
        reads_features = shared is not None or is_embedded_once(tested_on["test"], tested, cell.shape.images)
        if shared is not None and algorithm.backbone.frozen:
            # Distorted images have other features in each step.
            with_train = schedule is None or not schedule.augment
            trained_on = _imagined(trained_on, algorithm.backbone, device, with_train)
        images, rows = tested_on["test"], _imagined(tested_on, tested.backbone, device) if reads_features else tested_on
        try:
            step = 0.0 if schedule is None else _timed_step(training, algorithm, trained_on, device)
            test = evaluation_stream(cell, rows, device)
            if tested is not algorithm or schedule is None or schedule.shape is None:
                set_batchings(tested, test.batch(0, 1 if test.varies else 2), trains=False)
            if cell.is_trained_by_itself:
                tested.config = validate_config(type(tested.config), cell.algorithm.params)
            episode, alone = _timed_predictions(tested, test, cell.test.seed, device)
            validation = episode
            if schedule is not None and reads_features and not algorithm.backbone.frozen:
                # Each validation has other weights, and so no features that are at hand.
                validation, _ = _timed_predictions(
                    tested, evaluation_stream(cell, tested_on, device), cell.test.seed, device
                )
            embedding = 0.0
            if reads_features and isinstance(images, Split) and shared not in embeddings:
                embedding = seconds_to_embed(images, tested.backbone, device)
        except Unfit:
            return Pace()
        except Exception:
            return None
    if shared is not None:
        embedding = embeddings.setdefault(shared, embedding)
    return Pace(step, validation, episode, alone, embedding, shared)


def _features_of(cell: Cell, tested: Algorithm, split: Split | SourceSplit) -> str | None:
    """Return what cells have in common that read the same features of a split; None if a cell has its own or none.

    Features are shared where the backbone stays as it is: it is frozen, not trained, or another cell's.
    """
    training = cell.training
    fixed = tested.backbone.frozen or not cell.is_trained_by_itself or training.schedule is None
    if isinstance(split, SourceSplit) or not (fixed and may_embed_once(tested, split)):
        return None
    backbone = training.backbone
    parts: list[object] = [cell.dataset.label, training.precision, backbone.name, backbone.params]
    if not tested.backbone.frozen:
        parts.append(training.id if training.schedule else training.seed)
    return json.dumps(parts, sort_keys=True)


def _imagined(
    splits: Mapping[str, Split | SourceSplit], backbone: Backbone, device: torch.device, with_train: bool = True
) -> dict[str, Split | SourceSplit]:
    """Return the splits with imagined features in the place of images."""
    store = FeatureStore(None, "")
    return {
        name: replace(split, images=ImaginedFeatures(split, name, backbone, store, device))
        if isinstance(split, Split) and (name != "train" or with_train)
        else split
        for name, split in splits.items()
    }


def _timed_step(
    training: Training, algorithm: Algorithm, splits: Mapping[str, Split | SourceSplit], device: torch.device
) -> float:
    """Return the seconds of an outer update; of episodes, few are timed."""
    schedule = training.schedule
    assert schedule is not None, "a training has a schedule"
    if schedule.shape is None:
        batches = training_batches(training, splits, device)
        return _median_seconds(device, lambda i: algorithm.train_step(batches(i)))
    train = training_stream(training, splits, device)
    batch = min(schedule.batch, train.at_once or _AT_ONCE)
    set_batchings(algorithm, train.batch(0, batch))
    seconds = _median_seconds(device, lambda i: algorithm.train_step(train.batch(i * batch, batch)))
    return seconds * schedule.batch / batch


def _timed_predictions(algorithm: Algorithm, stream: Stream, seed: int, device: torch.device) -> tuple[float, float]:
    """Seconds per test episode, and per episode of the inductive re-test.

    The latter is 0 for inductive algorithms.
    """
    at_once = stream.at_once or _AT_ONCE
    episodes = _AT_ONCE if stream.varies else at_once
    warm_up = Stopwatch(device)
    with warm_up.running():
        predict(algorithm, stream.batch(0, 1), seed, 0)
    if warm_up.seconds > _SLOW:
        episodes = at_once = 1
    watch = Stopwatch(device)
    with watch.running():
        transductive = is_transductive(algorithm, stream, seed, BatchSize(device, at_once), episodes)
    alone = Stopwatch(device)
    if transductive:
        # An algorithm that cannot predict a single query is tested all the same; a remark gives the reason.
        with suppress(Exception), alone.running():
            predict_alone(algorithm, queries_alone(stream.batch(0, 1)), seed, 0)
    return watch.seconds / (2 * episodes), alone.seconds


def _median_seconds(device: torch.device, work: Callable[[int], object]) -> float:
    """Return the median time of three calls, after an untimed one."""
    seconds = []
    for i in range(4):
        watch = Stopwatch(device)
        with watch.running():
            work(i)
        seconds.append(watch.seconds)
    return statistics.median(seconds[1:])
