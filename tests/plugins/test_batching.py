"""All batchings compute the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metabench.api import Algorithm, Episodes, Setup
from metabench.api.batching import Batching, Sequential
from metabench.engine.asking import predict, predict_alone
from metabench.engine.batching import Threaded, Vmapped, weight_sharing_copy
from metabench.engine.trial import purity_of
from metabench_plugins.algorithms.maml import MAML, MAMLConfig
from metabench_plugins.algorithms.matchingnet import MatchingNet
from metabench_plugins.backbones.conv4 import Conv4, Conv4Config
from variants import Variant, every_norm, every_variant

Make = Callable[..., Any]
CPU = torch.device("cpu")
#: Five episodes, so that no number of threads or episodes at once divides them.
EPISODES = 5


def batchings(functional: bool) -> list[Batching]:
    """Return `Threaded` with fewer threads than episodes, as many and more, and `Vmapped` at once and in parts."""
    threaded: list[Batching] = [Threaded(2), Threaded(EPISODES), Threaded(8)]
    if not functional:
        return threaded
    return [*threaded, Vmapped(CPU), Vmapped(CPU, at_once=2), Threaded(2, Vmapped(CPU, at_once=2))]


def predicted(learner: Algorithm, episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Return the scores of all queries asked at once, and alone."""
    return predict(learner, episodes, 0, 0), predict_alone(learner, episodes, 0, 0)


def trained_state(learner: Algorithm) -> dict[str, Tensor]:
    return {name: value for name, value in learner.state_dict().items() if isinstance(value, Tensor)}


@every_norm
@every_variant
def test_every_batching_predicts_like_sequential(
    trained: Make, make_episodes: Make, variant: Variant, norm: str
) -> None:
    learner = trained(variant, norm)
    episodes = make_episodes(EPISODES, seed=7)
    plain = predicted(learner, episodes)
    for batching in batchings(learner.functional):
        learner.batching = batching
        torch.testing.assert_close(predicted(learner, episodes), plain, rtol=1e-9, atol=1e-9)


@every_norm
@every_variant
def test_every_batching_trains_like_sequential(trained: Make, make_episodes: Make, variant: Variant, norm: str) -> None:
    def after_training(batching: Batching) -> dict[str, Tensor]:
        learner: Algorithm = trained(variant, norm)
        if purity_of(learner, make_episodes(2)).training:
            learner.training_batching = batching
        for step in range(2):
            torch.manual_seed(step)
            loss = learner.train_step(make_episodes(EPISODES, seed=step))["loss"]
        return {**trained_state(learner), "loss": loss}

    plain = after_training(Sequential())
    for batching in batchings(trained(variant).functional):
        torch.testing.assert_close(after_training(batching), plain, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("downsample", ["pool", "stride"])
@pytest.mark.parametrize("first_order", [False, True])
def test_every_batching_has_the_same_meta_gradient(make_episodes: Make, downsample: str, first_order: bool) -> None:
    """The images have flat backgrounds, whose ties in max-pooling leave the gradient a choice."""

    def gradient(batching: Batching) -> list[Tensor]:
        torch.manual_seed(0)
        backbone = Conv4(Conv4Config(channels=20, norm="batch", downsample=downsample), (1, 16, 16))
        learner = MAML(MAMLConfig(inner_steps=2, first_order=first_order), Setup(backbone, 3, 3, 10)).double()
        learner.training_batching = batching
        drawn = make_episodes(EPISODES, seed=3)
        flat = Episodes(drawn.support_x.relu(), drawn.support_y, drawn.query_x.relu(), drawn.query_y, drawn.task)
        learner.train_step(flat)
        # A bias that batch norm subtracts may have no gradient in the place of 0.
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in learner.parameters()]

    plain = gradient(Sequential())
    assert sum(bool(slope.abs().max() > 1e-6) for slope in plain) == 14  # all but the biases
    for batching in batchings(functional=True):
        torch.testing.assert_close(gradient(batching), plain, rtol=1e-9, atol=1e-12)


def test_every_batching_makes_the_same_step_with_weights_in_channels_last_memory(make_episodes: Make) -> None:
    """A fused optimiser reads weights and gradients in the order of memory."""

    def trained(batching: Batching) -> list[Tensor]:
        torch.manual_seed(0)
        backbone = Conv4(Conv4Config(channels=20, norm="batch", downsample="stride"), (1, 16, 16))
        learner = MAML(MAMLConfig(), Setup(backbone, 3, 3, 10)).double()
        learner = learner.to(memory_format=torch.channels_last)
        learner.training_batching = batching
        learner.train_step(make_episodes(EPISODES, seed=3))
        return list(learner.parameters())

    plain = trained(Sequential())
    for batching in batchings(functional=True):
        torch.testing.assert_close(trained(batching), plain, rtol=1e-9, atol=1e-9)


def test_threads_use_the_precision_and_grad_mode_of_the_caller(make_episodes: Make) -> None:
    episodes = make_episodes(EPISODES, dtype=torch.float32)
    backbone = Conv4(Conv4Config(channels=8), (1, 16, 16))
    backbone.autocast = torch.bfloat16
    learner = MAML(MAMLConfig(), Setup(backbone, 3, 3, 10))
    plain = predicted(learner, episodes)
    learner.batching = Threaded(2)
    torch.testing.assert_close(predicted(learner, episodes), plain, rtol=0, atol=0)

    seen: list[bool] = []

    def look(module: nn.Module, episode: Tensor) -> tuple[Tensor]:
        seen.append(torch.is_grad_enabled())
        return (episode,)

    with torch.no_grad():
        Threaded(2).map(look, learner, torch.zeros(4, 1))
    assert seen == [False] * 4


def test_threaded_restores_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Threaded(2).map(lambda module, episode: (episode,), nn.Identity(), torch.zeros(4, 1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_error_of_a_thread_reaches_the_caller() -> None:
    def fail(module: nn.Module, episode: Tensor) -> tuple[Tensor]:
        raise ValueError(f"episode {int(episode)}")

    with pytest.raises(ValueError, match="episode 0"):
        Threaded(2).map(fail, nn.Identity(), torch.arange(4))


def test_a_batch_larger_than_memory_is_split_without_changing_the_gradient() -> None:
    """The simulated device has memory for two episodes."""
    at_once: list[int] = []
    module = nn.Linear(3, 1).double()
    batch = torch.randn(7, 3, dtype=torch.float64)

    def loss(learner: nn.Module, episode: Tensor) -> Tensor:
        return learner(episode).square().sum()  # type: ignore[no-any-return]

    Sequential().backward(loss, module, batch)
    wanted = module.weight.grad
    module.zero_grad()
    small = Vmapped(CPU, at_once=7)
    vmap = torch.vmap

    def scarce(*args: Any, **kwargs: Any) -> Any:
        def run(*parts: Tensor) -> Any:
            at_once.append(len(parts[0]))
            if len(parts[0]) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return vmap(*args, **kwargs)(*parts)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "vmap", scarce)
        losses = small.backward(loss, module, batch)
    assert at_once == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert len(losses) == 7
    torch.testing.assert_close(module.weight.grad, wanted, rtol=1e-12, atol=0)


# ------------------------------------------------------------------------------------------------ copies


def test_a_copy_shares_the_memory_of_weights_but_not_their_gradients() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    own = weight_sharing_copy(module)
    own(torch.randn(4, 2)).sum().backward()
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(parameter.grad is not None for parameter in own.parameters())
    with torch.no_grad():
        next(module.parameters()).fill_(3)
    assert torch.equal(next(own.parameters()), next(module.parameters()))


def test_a_copy_keeps_tied_weights_tied_and_missing_ones_missing() -> None:
    layer = nn.Linear(2, 2, bias=False)
    module = nn.ModuleDict({"a": layer, "b": layer, "c": nn.Linear(2, 2)})
    module["c"].weight = layer.weight
    own = weight_sharing_copy(module)
    assert own["a"] is own["b"]
    assert own["a"] is not layer
    assert own["c"].weight is own["a"].weight
    assert own["a"].bias is None


def test_recurrent_layers_of_a_copy_compute_with_its_own_weights(make_learner: Make) -> None:
    learner = make_learner(MatchingNet, fce=True)
    own = weight_sharing_copy(learner)
    episodes = torch.randn(3, learner.backbone.features, dtype=torch.float64)
    own.context(episodes, episodes)[0].sum().backward()
    assert all(parameter.grad is None for parameter in learner.parameters())
    assert any(parameter.grad is not None for parameter in own.context.support_lstm.parameters())
