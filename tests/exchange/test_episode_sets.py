"""Episodes for other code are those of the harness."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import metabench
from metabench.api import Split
from metabench.data.packing import DataRoots, load_splits
from metabench.data.sampler import EpisodeShape
from metabench.engine.streams import stream_of
from metabench.errors import MetabenchError
from metabench.exchange.episode_sets import EpisodeSet, EpisodeTensors
from metabench.registry.manager import PluginManager
from tiny import CPU

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def cached(glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METABENCH_CACHE", str(glyphs_cache))
    for name in ("METABENCH_DATA", "METABENCH_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


def equal(one: EpisodeTensors, other: EpisodeTensors) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("seed", [0, 7])
def test_episodes_equal_those_of_the_harness_digit_for_digit(
    split: str, seed: int, glyphs_cache: Path, plugins: PluginManager
) -> None:
    loaded = load_splits("glyphs", plugins.build_dataset("glyphs"), DataRoots((), glyphs_cache), lambda *done: None)
    harness = stream_of(loaded.splits[split], EpisodeShape(4, 2, 3), split, seed, CPU).batch(0, 12)
    episodes = metabench.episodes("glyphs", way=4, shot=2, queries=3, split=split, seed=seed, count=12)
    assert len(episodes) == 12
    for number, episode in enumerate(episodes):
        assert torch.equal(episode.support_x, harness.support_x[number])
        assert torch.equal(episode.support_y, harness.support_y[number])
        assert torch.equal(episode.query_x, harness.query_x[number])
        assert torch.equal(episode.query_y, harness.query_y[number])


def test_an_episode_is_a_function_of_its_number() -> None:
    some, more = (metabench.episodes("glyphs", way=3, queries=2, count=count) for count in (5, 700))
    assert equal(some[4], more[4])
    assert equal(more[-1], more[699])
    assert not equal(more[0], more[1])
    with pytest.raises(IndexError, match="no episode 5: they are 0 … 4"):
        some[5]


# Later versions of Python warn of forks where torch has threads.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_loader_with_workers_gives_the_same_episodes(start: str) -> None:
    episodes = metabench.episodes("glyphs", way=3, shot=1, queries=2, count=8)
    plain = DataLoader(episodes, batch_size=2)
    working = DataLoader(episodes, batch_size=2, num_workers=2, multiprocessing_context=start)
    expected, found = list(plain), list(working)
    assert len(found) == 4
    assert isinstance(found[0], EpisodeTensors)
    assert found[0].support_x.shape == (2, 3, 1, 28, 28)
    assert all(equal(one, other) for one, other in zip(expected, found, strict=True))


def test_a_spawned_worker_gets_no_copy_of_the_data() -> None:
    episodes = metabench.episodes("glyphs", count=5)
    content = pickle.dumps(episodes)
    assert len(content) < 5_000
    assert equal(pickle.loads(content)[3], episodes[3])


SCALED = """\
from dataclasses import replace
from metabench_plugins.datasets.glyphs import Glyphs

class Scaled(Glyphs):
    def split(self, pack):
        return {name: replace(split, mean=(0.5,), std=(0.25,)) for name, split in super().split(pack).items()}
"""


def test_images_need_not_be_normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scaled.py").write_text(SCALED, encoding="utf-8")
    plain = metabench.episodes("./scaled.py:Scaled", normalise=False)[0]
    scaled = metabench.episodes("./scaled.py:Scaled")[0]
    assert 0 <= float(plain.support_x.min()) < float(plain.support_x.max()) <= 1
    assert torch.equal((plain.query_x - 0.5) / 0.25, scaled.query_x)
    assert torch.equal(plain.query_y, scaled.query_y)


def test_classes_are_named_in_the_order_of_the_labels() -> None:
    episodes = metabench.episodes("glyphs", way=5, count=2)
    split = episodes.data.splits["test"]
    assert isinstance(split, Split)
    drawn, names = episodes.indices(1), episodes.classes(1)
    for label, image in zip(drawn.query_labels[0], drawn.query[0], strict=True):
        owner = int(np.searchsorted(split.offsets.numpy(), image, side="right")) - 1
        assert names[label] == split.class_names[owner]


def test_a_regression_has_numbers_and_no_classes() -> None:
    episodes = metabench.episodes("sinusoid", shot=10, queries=20, count=3)
    assert [part.shape for part in episodes[0]] == [(10, 1), (10, 1), (20, 1), (20, 1)]
    with pytest.raises(MetabenchError, match="'sinusoid' are made, and have no classes"):
        episodes.classes(0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: metabench.episodes("glyfs"), "did you mean 'glyphs'"),
        (lambda: metabench.episodes("glyphs", way=1), "way must be at least 2, not 1"),
        (lambda: metabench.episodes("glyphs", shot=0), "shot must be at least 1, not 0"),
        (lambda: metabench.episodes("glyphs", count=1), "1 episodes are too few"),
        (lambda: metabench.episodes("glyphs", split="dev"), "has no split 'dev': it has train, val, test"),
        (lambda: metabench.episodes("glyphs", shot=30), "'glyphs', split test: 5-way episodes need a split of 5"),
        (lambda: metabench.episodes("glyphs", params={"colour": 1}), "unknown key 'colour'"),
        (lambda: metabench.episodes("glyphs", file="none.json"), "cannot read the episodes of"),
    ],
)
def test_wrong_episodes_are_refused_with_a_sentence(wrong: Callable[[], EpisodeSet], message: str) -> None:
    with pytest.raises(MetabenchError, match=message):
        wrong()
