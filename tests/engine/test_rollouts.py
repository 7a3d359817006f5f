"""Sources that read a pack, and tests of what adapted learners do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metabench.api import Algorithm, Setup, SourceSplit
from metabench.data.packing import DataRoots, load_splits
from metabench.data.sampler import EpisodeShape
from metabench.engine.asking import Adapted, predict
from metabench.engine.sources import SourceStream
from metabench.errors import CellFailed, InvalidData
from metabench.testing import EpisodeSourceChecks
from metabench_plugins.algorithms.maml import MAML, MAMLConfig
from metabench_plugins.algorithms.reptile import Reptile, ReptileConfig
from metabench_plugins.backbones.mlp import MLP, MLPConfig
from strolls import DEMONSTRATIONS, STEPS, Strolls, StrollsConfig, Walkers

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


class TestStrolls(EpisodeSourceChecks):
    source = str(Path(__file__).parents[1] / "strolls.py:Strolls")


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., SourceStream]:
    """Return a function that returns the episodes of a split."""

    def episodes(split: str = "test", shot: int = 1, queries: int = 1, **params: int) -> SourceStream:
        loaded = load_splits("strolls", Strolls(StrollsConfig(**params)), DataRoots((), tmp_path), unseen)
        chosen = loaded.splits[split]
        assert isinstance(chosen, SourceSplit)
        return SourceStream(chosen, EpisodeShape(1, shot, queries), 0, CPU)

    return episodes


def unseen(done: int, total: int, what: str) -> None:
    """Show no progress."""


def learner(kind: type[Algorithm], config: Any) -> Algorithm:
    torch.manual_seed(0)
    return kind(config, Setup(MLP(MLPConfig(hidden=[8]), (1,)), 1, 1, 10, regression=Walkers.task))


def test_shots_and_queries_are_whole_demonstrations(stream: Callable[..., SourceStream]) -> None:
    drawn = stream(shot=2).batch(0, 3)
    assert drawn.support_x.shape == drawn.support_y.shape == (3, 2 * STEPS, 1)
    assert drawn.query_x.shape == drawn.query_y.shape == (3, STEPS, 1)


def test_each_task_comes_once_in_as_many_episodes_as_there_are_tasks(stream: Callable[..., SourceStream]) -> None:
    episodes = stream()
    for first in (0, 6, 600):
        assert sorted(episodes.groups(first, 6)[:, 0].tolist()) == list(range(6))
        assert len(torch.unique(episodes.batch(first, 6).support_y, dim=0)) == 6
    orders = {tuple(episodes.groups(6 * epoch, 6)[:, 0].tolist()) for epoch in range(10)}
    assert len(orders) > 5


def test_more_demonstrations_than_a_task_has_fail_the_cell(stream: Callable[..., SourceStream]) -> None:
    with pytest.raises(ValueError, match=f"2 shots and 2 queries of a task are more than the {DEMONSTRATIONS} that"):
        stream(shot=2, queries=2)


def test_a_split_without_tasks_fails_the_cell(stream: Callable[..., SourceStream]) -> None:
    with pytest.raises(ValueError, match="the train split has no tasks"):
        stream("train", train=0)


def test_the_fingerprint_is_that_of_the_pack_and_parameters_make_other_episodes(tmp_path: Path) -> None:
    first, other, again = (
        load_splits("strolls", Strolls(StrollsConfig(at_once=count)), DataRoots((), tmp_path / place), unseen)
        for count, place in ((4, "a"), (5, "a"), (4, "b"))
    )
    assert first.fingerprint == other.fingerprint == again.fingerprint
    assert first.test_content == again.test_content != other.test_content


def test_a_dataset_that_makes_episodes_returns_a_source(tmp_path: Path) -> None:
    class WithoutTest(Strolls):
        def split(self, pack: Any) -> dict[str, SourceSplit]:
            return {name: split for name, split in super().split(pack).items() if name != "test"}

    with pytest.raises(InvalidData, match="SourceSplit"):
        load_splits("strolls", WithoutTest(StrollsConfig()), DataRoots((), tmp_path), unseen)


@pytest.mark.parametrize(
    ("kind", "config"), [(MAML, MAMLConfig(inner_lr=0.1)), (Reptile, ReptileConfig(test_inner_batch=5))]
)
def test_learners_in_lockstep_answer_as_in_the_test_of_their_answers(
    kind: type[Algorithm], config: Any, stream: Callable[..., SourceStream]
) -> None:
    algorithm, drawn = learner(kind, config), stream().batch(2, 4)
    adapted = Adapted(algorithm, drawn, 0, 2)
    expected = predict(algorithm, drawn, 0, 2)
    assert torch.equal(adapted(drawn.query_x), expected)
    assert torch.equal(adapted(drawn.query_x[:, :1]), adapted(drawn.query_x[:, :1]))
    torch.testing.assert_close(adapted(drawn.query_x[:, 1:2]), expected[:, 1:2])


def test_an_answer_that_is_not_finite_fails_the_cell(stream: Callable[..., SourceStream]) -> None:
    algorithm, drawn = learner(MAML, MAMLConfig(inner_lr=1e30, test_inner_steps=5)), stream().batch(0, 2)
    with pytest.raises(CellFailed, match="in a rollout is not finite"):
        Adapted(algorithm, drawn, 0, 0)(drawn.query_x)


def test_a_learner_adapts_once_for_all_answers(stream: Callable[..., SourceStream]) -> None:
    calls = []

    class Counting(MAML):
        def adapt(self, support: Any) -> Any:
            calls.append(len(support.x))
            return super().adapt(support)

    episodes = stream()
    assert episodes.rollouts is not None
    episodes.rollouts.measure(
        Adapted(learner(Counting, MAMLConfig()), episodes.batch(0, 4), 0, 0), episodes.uniform(0, 4), "test"
    )
    assert calls == [STEPS] * 4


def test_values_are_those_of_an_expert(stream: Callable[..., SourceStream]) -> None:
    episodes = stream()
    source = episodes._split.source
    goals = source.goals(episodes.uniform(0, 6), "test").view(-1, 1, 1)  # type: ignore[attr-defined]

    def expert(places: Tensor) -> Tensor:
        return (goals - places) / 2

    assert episodes.rollouts is not None
    values = episodes.rollouts.measure(expert, episodes.uniform(0, 6), "test")
    torch.testing.assert_close(values["gap"], goals.flatten().abs() / 2**STEPS)
    assert values["arrived"].all()
