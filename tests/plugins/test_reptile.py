from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Episodes, Unfit, episode_generators
from metabench.engine.asking import predict
from metabench.engine.controls import is_transductive
from metabench.engine.streams import EpisodeStream
from metabench.machine.memory import BatchSize
from metabench_plugins.algorithms.reptile import Reptile, minibatches

Make = Callable[..., Any]
LR = 0.01
#: More images than an episode has, so that every minibatch is the whole training episode.
ALL = 100


def task(episodes: Episodes, i: int) -> tuple[Tensor, Tensor]:
    """Return all images and labels of a training episode."""
    return (
        torch.cat([episodes.support_x[i], episodes.query_x[i]]),
        torch.cat([episodes.support_y[i], episodes.query_y[i]]),
    )


def plain_inner_loop(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    batches: Iterable[Tensor],
    squares: list[Tensor] | None = None,
    steps: int = 0,
) -> tuple[nn.Module, list[Tensor]]:
    """Train a copy with torch's Adam, optionally from mean squares; return it and its mean squares."""
    adapted = copy.deepcopy(module)
    optimiser = torch.optim.Adam(adapted.parameters(), lr=LR, betas=(0.0, 0.999))
    for parameter, square in zip(adapted.parameters(), squares or [], strict=squares is not None):
        optimiser.state[parameter] = {
            "step": torch.tensor(float(steps)),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": square.clone(),
        }
    for batch in batches:
        optimiser.zero_grad()
        F.cross_entropy(adapted(x[batch]), y[batch]).backward()
        optimiser.step()
    return adapted, [optimiser.state[parameter]["exp_avg_sq"] for parameter in adapted.parameters()]


def weights(module: nn.Module) -> list[Tensor]:
    """Return copies of the weights, except the biases before a batch norm.

    The gradient of those is only rounding error, which Adam turns into full steps.
    """
    named = module.named_parameters()
    return [parameter.detach().clone() for name, parameter in named if not name.endswith("conv.bias")]


def means(results: list[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(group).mean(dim=0) for group in zip(*results, strict=True)]


@pytest.mark.parametrize("norm", ["batch", "running"])
@pytest.mark.parametrize("inner_batch", [5, ALL])
def test_the_outer_update_moves_weights_towards_the_mean_of_the_adapted_ones(
    make_learner: Make, make_episodes: Make, inner_batch: int, norm: str
) -> None:
    learner = make_learner(
        Reptile, norm=norm, inner_lr=LR, inner_steps=4, inner_batch=inner_batch, outer_step=0.7, train_steps=10
    )
    learner.train()
    squares = None
    for step in range(3):
        episodes: Episodes = make_episodes(3, seed=step)
        start = weights(learner)
        torch.manual_seed(step)
        results, all_squares = [], []
        for i, generator in enumerate(episode_generators(len(episodes))):
            x, y = task(episodes, i)
            batches = minibatches(len(y), inner_batch, 4, generator)
            adapted, after = plain_inner_loop(learner, x, y, batches, squares, 4 * step)
            results.append(weights(adapted))
            all_squares.append(after)
        # The mean squares go from one meta-batch to the next, as in the authors' code.
        squares = means(all_squares)
        epsilon = 0.7 * (1 - step / 10)
        torch.manual_seed(step)
        learner.train_step(episodes)
        for now, before, mean in zip(weights(learner), start, means(results), strict=True):
            torch.testing.assert_close(now, before + epsilon * (mean - before), rtol=1e-8, atol=1e-10)


def test_an_outer_step_of_zero_is_the_identity(make_learner: Make, make_episodes: Make) -> None:
    learner = make_learner(Reptile, inner_lr=LR, outer_step=0.0)
    start = [parameter.clone() for parameter in learner.parameters()]
    learner.train_step(make_episodes(2))
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters(), start, strict=True))


def test_an_outer_step_of_one_on_one_episode_gives_its_adapted_weights(make_learner: Make, make_episodes: Make) -> None:
    episodes: Episodes = make_episodes(1)
    learner = make_learner(Reptile, norm="batch", inner_lr=LR, inner_steps=4, inner_batch=ALL).train()
    x, y = task(episodes, 0)
    adapted, _ = plain_inner_loop(learner, x, y, [torch.arange(len(y))] * 4)
    learner.train_step(episodes)
    for now, expected in zip(weights(learner), weights(adapted), strict=True):
        torch.testing.assert_close(now, expected, rtol=1e-8, atol=1e-10)


def test_one_inner_step_on_the_whole_episode_follows_the_normalised_gradient(
    make_learner: Make, make_episodes: Make
) -> None:
    episodes: Episodes = make_episodes(1)
    learner = make_learner(Reptile, norm="batch", inner_lr=1e-4, inner_steps=1, inner_batch=ALL).train()
    x, y = task(episodes, 0)

    def joint_loss() -> Tensor:
        return F.cross_entropy(learner(x), y)

    loss = joint_loss()
    loss.backward()
    gradients = [p.grad for name, p in learner.named_parameters() if not name.endswith("conv.bias")]
    start = weights(learner)
    metrics = learner.train_step(episodes)
    assert metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-12)
    for now, before, gradient in zip(weights(learner), start, gradients, strict=True):
        # Adam's first step: the gradient divided by its own size, apart from the 1e-8.
        expected = -1e-4 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(now - before, expected, rtol=1e-7, atol=1e-12)
    assert joint_loss().item() < loss.item()


@pytest.mark.parametrize("done", [0, 1, 4, 7, 8])
def test_the_outer_step_falls_linearly_to_zero(make_learner: Make, make_episodes: Make, done: int) -> None:
    episodes: Episodes = make_episodes(1)
    moved = []
    for steps in (0, done):
        learner = make_learner(Reptile, inner_lr=LR, inner_batch=ALL, outer_step=1.0, train_steps=8)
        learner.load_training_state({"outer_steps": steps})
        start = weights(learner)
        learner.train_step(episodes)
        moved.append([now - before for now, before in zip(weights(learner), start, strict=True)])
    assert max(float(move.abs().max()) for move in moved[0]) > 1e-3
    for full, part in zip(*moved, strict=True):
        torch.testing.assert_close(part, full * (1 - done / 8), rtol=1e-9, atol=1e-12)


def test_the_annealing_counts_the_outer_steps(make_learner: Make, make_episodes: Make) -> None:
    learner = make_learner(Reptile)
    for done in range(3):
        assert learner.training_state() == {"outer_steps": done}
        learner.train_step(make_episodes(1))


@pytest.mark.parametrize(("images", "size"), [(10, 5), (10, 4), (7, 3), (3, 10), (5, 1)])
def test_minibatches_use_every_image_once_a_pass(images: int, size: int) -> None:
    batches = list(minibatches(images, size, 4 * images, torch.Generator().manual_seed(0)))
    assert {len(batch) for batch in batches} == {min(size, images)}
    assert len(batches) == 4 * images
    passes = torch.cat(batches).split(images)
    assert all(sorted(one.tolist()) == list(range(images)) for one in passes)
    if images > 3:
        assert len({tuple(one.tolist()) for one in passes}) > 1


@pytest.mark.parametrize("norm", ["batch", "running"])
@pytest.mark.parametrize("transductive", [False, True])
def test_prediction_is_adam_on_a_copy(make_learner: Make, make_episodes: Make, norm: str, transductive: bool) -> None:
    episodes: Episodes = make_episodes(1)
    learner = make_learner(
        Reptile,
        norm=norm,
        inner_lr=LR,
        inner_steps=3,
        inner_batch=ALL,
        test_inner_steps=4,
        test_inner_batch=ALL,
        transductive=transductive,
    ).train()
    x, y = task(episodes, 0)
    _, squares = plain_inner_loop(learner, x, y, [torch.arange(len(y))] * 3)
    learner.train_step(episodes)
    learner.eval()
    support, queries = episodes.support_x[0], episodes.query_x[0]
    adapted, _ = plain_inner_loop(learner, support, episodes.support_y[0], [torch.arange(6)] * 4, squares, 3)
    with torch.no_grad():
        if transductive:
            expected = adapted(queries)
        else:
            expected = torch.stack([adapted(torch.cat([support, query[None]]))[-1] for query in queries])
    scores = predict(learner, episodes, 0, 0)
    torch.testing.assert_close(scores[0], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("transductive", [False, True])
def test_with_norm_support_a_query_is_normalised_by_the_support_set_only(
    make_learner: Make, make_episodes: Make, transductive: bool
) -> None:
    episodes: Episodes = make_episodes(1)
    learner = make_learner(
        Reptile, norm="support", inner_lr=1e-12, test_inner_steps=1, test_inner_batch=ALL, transductive=transductive
    ).eval()
    # With an inner step of nearly nothing the weights are those of the learner.
    with torch.no_grad():
        images = torch.cat([episodes.support_x[0], episodes.query_x[0]])
        expected = learner.head(learner.backbone(images, support=6))[6:]
    scores = predict(learner, episodes, 0, 0)
    torch.testing.assert_close(scores[0], expected, rtol=1e-6, atol=1e-8)


def test_training_with_another_way_is_refused(make_learner: Make) -> None:
    with pytest.raises(Unfit, match=r"train\.way \(5\) must be the tested way \(3\)"):
        make_learner(Reptile, way=3, train_way=5)


@pytest.mark.parametrize(
    ("norm", "together", "expected"),
    [("batch", False, False), ("batch", True, True), ("support", True, False), ("running", True, False)],
)
def test_it_is_transductive_only_if_all_queries_are_normalised_together(
    make_learner: Make, make_episodes: Make, stream: EpisodeStream, norm: str, together: bool, expected: bool
) -> None:
    learner = make_learner(Reptile, norm=norm, transductive=together, test_inner_steps=5, dtype=torch.float32)
    learner.train_step(make_episodes(2, dtype=torch.float32))
    assert is_transductive(learner, stream, 0, BatchSize(torch.device("cpu"))) is expected
