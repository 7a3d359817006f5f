"""Splits are embedded once by a frozen backbone; results are those from images."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from frozen import SUITE, Mixing, OnFeatures, Projected
from metabench.api import Classification, Episodes, Setup, Split
from metabench.data.sampler import EpisodeShape
from metabench.engine import costs
from metabench.engine.asking import predict
from metabench.engine.batching import InOrder, Vmapped
from metabench.engine.costs import flops
from metabench.engine.feature_store import FeatureStore
from metabench.engine.features import FeatureRows
from metabench.engine.learner import make_learner
from metabench.engine.outcome import Outcome
from metabench.engine.progress import Interrupted
from metabench.engine.streams import EpisodeStream
from metabench.engine.trial import set_batchings
from metabench.errors import CellFailed, Unfit
from metabench.executors.loading import LoadedDataset
from metabench.machine.clock import Stopwatch
from metabench.planning.cells import Cell
from metabench.planning.distortions import Distortion
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.registry.manager import PluginManager
from tiny import CPU, Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

ORIGIN = {"dataset_fingerprint": "f", "device": "cpu", "algorithm": "code of an algorithm"}
ALL = {"train": 48, "val": 48, "test": 48}

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def no_calls() -> None:
    Projected.calls.clear()


@pytest.fixture
def run(tmp_path: Path, data: LoadedDataset, suite_file: Callable[[str], SuiteFile]) -> Run:
    """Return a function that runs the only cell of an algorithm on a backbone, with features in a folder."""
    entries = [EntryPoint(name, f"{name}:PLUGIN", "metabench") for name in ("tiny", "frozen")]
    plugins = PluginManager(entries)

    def start(
        algorithm: str = "onfeatures",
        backbone: str = "projected",
        watcher: Watching | None = None,
        features: Path | None = None,
        origin: dict[str, str] = ORIGIN,
        change: Callable[[Cell], Cell] = lambda cell: cell,
        splits: Mapping[str, Split] = data.splits,
    ) -> Outcome:
        suite, file = resolve(suite_file(SUITE.format(algorithm=algorithm, backbone=backbone)))
        (cell,) = make_plan(suite, file, plugins)
        cell, of_cell = (
            change(cell),
            replace(data, splits=splits, features=features, fingerprint=origin["dataset_fingerprint"]),
        )
        folder, watcher = tmp_path / os.urandom(4).hex(), watcher or Watching()
        learner = make_learner(
            cell.training, [cell.selection], {cell.dataset.label: of_cell}, CPU, plugins, folder, watcher, origin
        )
        return learner.test(cell, watcher)

    return start


def embedded(watcher: Watching) -> dict[str, int]:
    """Return the number of images of each split that was embedded."""
    return {name.removeprefix("embed "): total for name, total, _ in watcher.phases if name.startswith("embed ")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock")


def test_results_from_cached_features_are_those_from_images(run: Run, tmp_path: Path) -> None:
    from_images = run(backbone="thawed")
    for folder in (None, tmp_path / "features"):
        cached = run(features=folder)
        assert (cached.episodes.figures["accuracy"] == from_images.episodes.figures["accuracy"]).all()
        assert cached.train.validation == from_images.train.validation
        assert cached.flops_per_episode == from_images.flops_per_episode, "counted from images"
        assert cached.transductive is from_images.transductive is False
        assert cached.picture is not None
        assert cached.remarks == from_images.remarks
        assert "the backbone's input is 16, and its weights were made for 224" in cached.remarks


def test_each_split_is_embedded_once_for_all_cells(run: Run, tmp_path: Path) -> None:
    first, second = Watching(), Watching()
    run(watcher=first, features=tmp_path / "features")
    assert embedded(first) == ALL
    files = names(tmp_path / "features")
    assert len(files) == 3
    run(watcher=second, features=tmp_path / "features", origin={**ORIGIN, "algorithm": "other code"})
    assert embedded(second) == {}
    assert names(tmp_path / "features") == files


@pytest.mark.parametrize(
    "change",
    [
        {"origin": {**ORIGIN, "dataset_fingerprint": "other"}},
        {"origin": {**ORIGIN, "torch": "3.0"}},
        {"change": lambda cell: replace(cell, training=replace(cell.training, seed=1))},  # other weights
        {"change": lambda cell: replace(cell, training=replace(cell.training, precision="bf16"))},
    ],
)
def test_other_data_code_weights_or_precision_have_other_features(
    change: dict[str, Any], run: Run, tmp_path: Path
) -> None:
    run(features=tmp_path / "features")
    watcher = Watching()
    run(**{"watcher": watcher, "features": tmp_path / "features", **change})
    assert embedded(watcher) == ALL


def test_a_dataset_of_vectors_is_trained_and_tested(run: Run, data: LoadedDataset) -> None:
    vectors = {
        name: replace(split, images=split.rows.take(torch.arange(48)).flatten(1).float() / 255)
        for name, split in data.splits.items()
    }
    of_vectors, of_images = run(backbone="flat", splits=vectors), run(backbone="flat")
    assert (of_vectors.episodes.figures["accuracy"] == of_images.episodes.figures["accuracy"]).all()
    assert of_vectors.picture is None
    assert not [remark for remark in of_vectors.remarks if "not measured" in remark]
    with pytest.raises(Unfit, match="Projected takes images, and the dataset has vectors of 256 numbers"):
        run(splits=vectors)


def test_features_as_many_as_pixels_are_not_kept(run: Run, tmp_path: Path) -> None:
    watcher = Watching()
    run(backbone="flat", watcher=watcher, features=tmp_path / "features")
    assert embedded(watcher) == {}


def test_distorted_training_images_are_embedded_each_time(run: Run, tmp_path: Path) -> None:
    def flipping(cell: Cell) -> Cell:
        schedule = replace(cell.training.schedule, augment=(Distortion.model_validate({"flip": {}}),))
        return replace(cell, training=replace(cell.training, schedule=schedule))

    watcher = Watching()
    run(watcher=watcher, features=tmp_path / "features", change=flipping)
    assert embedded(watcher) == {"val": 48, "test": 48}


def few_episodes(cell: Cell) -> Cell:
    """Return the cell with fewer images in its test episodes (36) than in the test split (48)."""
    return replace(cell, test=replace(cell.test, episodes=2, inductive_episodes=2))


def test_a_trained_backbone_embeds_a_small_test_split_once_whatever_the_number_of_episodes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, few, large = Watching(), Watching(), Watching()
    run(backbone="thawed", watcher=many, features=tmp_path / "features")
    run(backbone="thawed", watcher=few, features=tmp_path / "features", change=few_episodes)
    assert embedded(many) == embedded(few) == {"test": 48}
    monkeypatch.setattr("metabench.engine.features._WORTH", 2)  # episodes of 18 images
    run(backbone="thawed", watcher=large, features=tmp_path / "features")
    assert embedded(large) == {}
    assert names(tmp_path / "features") == [], "other weights have other features"


def test_a_split_embedded_once_gives_the_accuracies_of_its_images(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    once = run(backbone="thawed")
    monkeypatch.setattr("metabench.engine.outcome.embedded_once", lambda splits, *others: splits)
    from_images = run(backbone="thawed")
    assert (once.episodes.figures["accuracy"] == from_images.episodes.figures["accuracy"]).all()


def test_a_frozen_backbone_that_mixes_images_fails_the_cell(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CellFailed, match="the features of an image depend on the other images of the pass"):
        run(backbone="mixing", features=tmp_path / "features")
    assert names(tmp_path / "features") == []


def test_an_interrupted_embedding_leaves_nothing(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(watcher=Watching("embed train", 1), features=tmp_path / "features")
    assert names(tmp_path / "features") == []


def test_damaged_features_are_embedded_again(run: Run, tmp_path: Path) -> None:
    run(features=tmp_path / "features")
    for path in (tmp_path / "features").glob("*.safetensors"):
        os.truncate(path, 4200)
    watcher = Watching()
    run(watcher=watcher, features=tmp_path / "features")
    assert embedded(watcher) == ALL


def test_a_full_disk_fails_the_cell_with_what_to_do(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("metabench.files.os.fsync", full)
    with pytest.raises(CellFailed, match=r"cannot store features .*No space left on device\. Free some space"):
        run(features=tmp_path / "features")
    assert names(tmp_path / "features") == []


# --------------------------------------------------------------------------------------- one split


class TickingStopwatch(Stopwatch):
    """Every measured time is a second."""

    @contextmanager
    def running(self) -> Iterator[None]:
        yield
        self.seconds += 1.0


def rows_of(split: Split, folder: Path | None, watcher: Watching | None = None) -> FeatureRows:
    torch.manual_seed(0)
    backbone = Projected(None, (1, 16, 16)).requires_grad_(False)
    return FeatureRows(split, "test", backbone, FeatureStore(folder, "origin"), CPU, watcher)


def test_a_second_worker_waits_and_maps_what_the_first_one_stored(data: LoadedDataset, tmp_path: Path) -> None:
    split = data.splits["test"]
    first, second = rows_of(split, tmp_path), rows_of(split, tmp_path, Watching())
    started, images = threading.Event(), []

    def embed() -> None:
        started.set()
        images.append(second.embedded().take(torch.arange(48)))

    path = first._store.path(split, "test", first._backbone)
    assert path is not None
    with FileLock(path.with_suffix(".lock")):
        worker = threading.Thread(target=embed)
        worker.start()
        assert started.wait(10)
        assert not path.exists()
    worker.join(30)
    Projected.calls.clear()
    assert torch.equal(first.embedded().take(torch.arange(48)), images[0])
    assert Projected.calls == [], "one of them embeds"


def test_a_worker_that_waits_can_be_stopped(data: LoadedDataset, tmp_path: Path) -> None:
    watcher = Watching()
    rows = rows_of(data.splits["test"], tmp_path, watcher)
    path = rows._store.path(data.splits["test"], "test", rows._backbone)
    assert path is not None
    watcher._reached = True
    with FileLock(path.with_suffix(".lock")), pytest.raises(Interrupted):
        rows.embedded()


def test_a_stream_of_features_has_the_episodes_of_its_images(data: LoadedDataset) -> None:
    split = data.splits["test"]
    rows = rows_of(split, None)
    shape = EpisodeShape(3, 2, 4)
    of_features = EpisodeStream(replace(split, images=rows), shape, "test", 0, CPU)
    of_images = EpisodeStream(split, shape, "test", 0, CPU)
    drawn, expected = of_features.batch(3, 5), of_images.batch(3, 5)
    assert (drawn.embedded, expected.embedded) == (True, False)
    assert drawn[1:2].embedded
    with torch.no_grad():
        features = rows._backbone(expected.query_x.flatten(0, 1)).reshape(5, 12, 7)
    torch.testing.assert_close(drawn.query_x, features, rtol=1e-5, atol=1e-6)
    assert torch.equal(of_features.images.batch(3, 5).query_x, expected.query_x)
    assert of_images.images is of_images
    assert (of_features.at_once, of_images.at_once) == (64, None)


def test_episodes_of_features_are_vectorised_to_the_same_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).expand(6, -1)
    support, query = (torch.randn(6, images, 7, generator=generator) for images in (3, 9))
    episodes = Episodes(support, labels, query, labels.repeat(1, 3), Classification(3), embedded=True)
    learner = OnFeatures(None, Setup(Projected(None, (1, 16, 16)), 3, 3, 1))
    set_batchings(learner, episodes)
    assert isinstance(learner.batching, Vmapped)
    vectorised = predict(learner, episodes, 0, 0)
    learner.batching = InOrder()
    torch.testing.assert_close(vectorised, predict(learner, episodes, 0, 0))
    assert Projected.calls == [], "features are not embedded again"


def test_operations_are_counted_from_images(data: LoadedDataset) -> None:
    split = data.splits["test"]
    rows = rows_of(split, None)
    learner = OnFeatures(None, Setup(rows._backbone, 3, 3, 1))
    shape = EpisodeShape(3, 2, 4)
    streams = [EpisodeStream(content, shape, "test", 0, CPU) for content in (split, replace(split, images=rows))]
    of_images = flops(learner, streams[0], 0)
    Projected.calls.clear()
    assert flops(learner, streams[1], 0) == of_images > 18 * 256 * 7
    assert Projected.calls == [1], "one image is enough for kept features"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("seconds", "embedded"), [(1e9, 1 + 5), (0.0, 1)])
def test_latency_of_kept_features_counts_their_embedding(
    data: LoadedDataset, monkeypatch: pytest.MonkeyPatch, seconds: float, embedded: int
) -> None:
    monkeypatch.setattr(costs, "EMBEDDING_SECONDS", seconds)
    split = data.splits["test"]
    rows = rows_of(split, None)
    stream = EpisodeStream(replace(split, images=rows), EpisodeShape(3, 2, 4), "test", 0, CPU)
    learner = OnFeatures(None, Setup(rows._backbone, 3, 3, 1))
    stream.batch(0, 1)
    Projected.calls.clear()
    monkeypatch.setattr(costs, "Stopwatch", TickingStopwatch)
    timed = costs.latencies(learner, stream, 0, CPU, 40)
    assert Projected.calls == [1, *[6, 12] * embedded], "one image first, then support and queries of few episodes"
    # Each of the two embeddings takes a second of this clock, and so do the algorithm and its two parts.
    assert timed.adapt is not None
    assert timed.answer is not None
    assert (timed.whole["p50"], timed.adapt["p50"], timed.answer["p50"]) == (3000.0, 2000.0, 2000.0)


def test_the_mixing_backbone_mixes() -> None:
    images = torch.randn(4, 1, 16, 16)
    backbone = Mixing(None, (1, 16, 16))
    assert not torch.allclose(backbone(images)[:1], backbone(images[:1]))
