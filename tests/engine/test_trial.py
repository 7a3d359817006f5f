"""Random draws and buffers are found by trying, whatever the class of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metabench.api import Algorithm, Backbone, Classification, Config, Episodes, Setup, is_vectorised
from metabench.engine.batching import InOrder, Threaded, Vmapped
from metabench.engine.trial import batching_for, purity_of, set_batchings
from metabench.machine.reproducible import seed_generators
from metabench_plugins.algorithms.maml import MAML, MAMLConfig
from metabench_plugins.algorithms.protonet import ProtoNet, ProtoNetConfig
from metabench_plugins.algorithms.reptile import Reptile, ReptileConfig
from metabench_plugins.backbones.conv4 import Conv4, Conv4Config

CPU = torch.device("cpu")


def episodes_of(count: int, seed: int = 0) -> Episodes:
    """Return random 3-way 1-shot episodes with two queries a class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).expand(count, -1)
    support, query = (torch.randn(count, images, 1, 16, 16, generator=generator) for images in (3, 6))
    return Episodes(support, labels, query, labels.repeat(1, 2), Classification(3))


class Pooled(Backbone):
    """Flattened images after a module of the test's choice."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(Config(), (1, 16, 16))
        self.module = module
        self.dense = nn.Linear(256, 8)
        self.features = 8

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return self.dense(self.module(x).flatten(1))  # type: ignore[no-any-return]


class DropBlock(nn.Module):
    """Drops pixels at random, without buffers and without a dropout layer; at test, too, if `always`."""

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) > 0.3) if self.training or self.always else x


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def maml(module: nn.Module) -> MAML:
    torch.manual_seed(0)
    return MAML(MAMLConfig(), Setup(Pooled(module), 3, 3, 10))


@pytest.mark.parametrize(
    ("module", "in_order"),
    [
        (nn.Identity(), False),
        (nn.BatchNorm2d(1, track_running_stats=False), False),
        (nn.BatchNorm2d(1), True),
        (nn.Dropout(0.5), True),
        (DropBlock(), True),
    ],
)
def test_training_is_in_order_if_an_episode_draws_or_changes_the_next(module: nn.Module, in_order: bool) -> None:
    learner = maml(module)
    set_batchings(learner, episodes_of(2))
    assert isinstance(learner.training_batching, InOrder if in_order else Threaded)
    assert isinstance(learner.batching, Threaded)


def test_a_network_that_draws_at_test_predicts_in_order() -> None:
    learner = maml(DropBlock(always=True))
    set_batchings(learner, episodes_of(2))
    assert isinstance(learner.batching, InOrder)


def test_two_trainings_that_draw_from_one_seed_are_equal() -> None:
    def trained() -> Tensor:
        learner = maml(DropBlock())
        set_batchings(learner, episodes_of(2))
        for step in range(3):
            seed_generators(step)
            learner.train()
            learner.train_step(episodes_of(4, seed=step))
        return nn.utils.parameters_to_vector(learner.parameters())

    first = trained()
    assert all(torch.equal(trained(), first) for _ in range(3))


def test_threads_that_draw_are_refused() -> None:
    learner = maml(DropBlock()).train()
    learner.training_batching = Threaded(2)
    with pytest.raises(RuntimeError, match="an episode drew random numbers"):
        learner.train_step(episodes_of(4))


def test_the_draws_of_an_episode_do_not_depend_on_the_others() -> None:
    def draw(module: nn.Module, episode: Tensor) -> tuple[Tensor]:
        return (torch.rand(int(episode[0])),)

    seed_generators(7)
    whole = InOrder().map(draw, nn.Identity(), torch.tensor([[3], [3], [3]]))[0]
    seed_generators(7)
    torch.rand(1000)
    part = InOrder().map(draw, nn.Identity(), torch.tensor([[3], [3]]))[0]
    assert torch.equal(whole[:2], part)
    assert len(set(whole.flatten().tolist())) == 9


@pytest.mark.parametrize(
    ("make", "pure"),
    [
        (lambda backbone: ProtoNet(ProtoNetConfig(), Setup(backbone, 3, 3, 10)), True),
        (lambda backbone: Reptile(ReptileConfig(), Setup(backbone, 3, 3, 10)), True),
    ],
)
def test_draws_outside_an_episode_do_not_count(make: Callable[[Backbone], Algorithm], pure: bool) -> None:
    learner = make(Pooled(nn.Identity()))
    before = [parameter.clone() for parameter in learner.parameters()]
    episodes: Episodes = episodes_of(2)
    assert purity_of(learner, episodes).training is pure
    assert all(torch.equal(one, other) for one, other in zip(before, learner.parameters(), strict=True))


def test_the_batching_depends_on_device_and_algorithm() -> None:
    assert isinstance(batching_for(CPU, functional=True, inner_loop=True), Threaded)
    assert isinstance(batching_for(CPU, functional=False, inner_loop=True), InOrder)
    assert isinstance(batching_for(CPU, functional=True, inner_loop=True, vectors=True), Vmapped)
    assert isinstance(batching_for(CPU, functional=True, inner_loop=False, vectors=True), Vmapped)
    assert isinstance(batching_for(CPU, functional=False, inner_loop=True, vectors=True), InOrder)
    assert isinstance(batching_for(CPU, functional=True, inner_loop=False), InOrder)
    torch.set_num_threads(1)
    assert isinstance(batching_for(CPU, functional=True, inner_loop=True), InOrder)
    cuda = torch.device("cuda", 0)
    assert isinstance(batching_for(cuda, functional=True, inner_loop=False), Vmapped)
    assert isinstance(batching_for(cuda, functional=False, inner_loop=True), InOrder)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("changed", "vectorised"),
    [
        ({}, True),
        ({"first_order": True}, False),
        ({"downsample": "pool"}, False),
        ({"norm": "running"}, False),
        ({"autocast": torch.bfloat16}, False),
    ],
)
def test_second_order_training_of_strided_networks_is_vectorised_on_a_cpu(
    changed: dict[str, Any], vectorised: bool, threads: int
) -> None:
    settings = {"first_order": False, "downsample": "stride", "norm": "batch", "autocast": None, **changed}
    torch.set_num_threads(threads)
    network = Conv4Config.model_validate({"channels": 4, **{name: settings[name] for name in ("downsample", "norm")}})
    learner = MAML(MAMLConfig(first_order=settings["first_order"]), Setup(Conv4(network, (1, 16, 16)), 3, 3, 10))
    learner.backbone.autocast = settings["autocast"]
    learner.train()
    calls: list[int] = []
    set_batchings(learner, episodes_of(2))
    learner.backbone.register_forward_pre_hook(lambda module, inputs: calls.append(is_vectorised()))
    learner.train_step(episodes_of(4))
    assert calls
    assert set(calls) == {vectorised}
