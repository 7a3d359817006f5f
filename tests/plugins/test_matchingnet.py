from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metabench.api import Backbone, Episodes
from metabench.api.algorithms import training_loss
from metabench.engine.asking import predict
from metabench_plugins.algorithms.matchingnet import FullContext, MatchingNet, attended_labels

Make = Callable[..., Any]
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
ORDER = torch.tensor([4, 1, 0, 5, 3, 2])


def vectors(count: int, seed: int) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def direct_probabilities(query: Tensor, support: Tensor, labels: Tensor, way: int, scale: float) -> Tensor:
    """Return equation 1 term by term, without any logarithm."""
    result = torch.zeros(len(query), way, dtype=torch.float64)
    for m, q in enumerate(query):
        weights = [math.exp(scale * float(q @ s) / float(q.norm() * s.norm())) for s in support]
        for weight, label in zip(weights, labels.tolist(), strict=True):
            result[m, label] += weight / sum(weights)
    return result


@pytest.mark.parametrize("fce", [False, True])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_probabilities_sum_to_one(make_learner: Make, make_episodes: Make, scale: float, fce: bool) -> None:
    episodes: Episodes = make_episodes(2)
    scores = predict(make_learner(MatchingNet, scale=scale, fce=fce), episodes, 0, 0)
    torch.testing.assert_close(scores.exp().sum(dim=-1), torch.ones(2, 6, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [0.5, 1.0, 10.0])
def test_scores_are_the_log_of_the_attention_on_each_class(scale: float) -> None:
    query, support = vectors(4, 1), vectors(6, 2)
    expected = direct_probabilities(query, support, LABELS, 3, scale)
    torch.testing.assert_close(attended_labels(query, support, LABELS, 3, scale).exp(), expected, rtol=1e-12, atol=0)


def test_the_loss_is_the_negative_log_likelihood_of_the_probabilities(
    make_learner: Make, make_episodes: Make, flat: Callable[..., Backbone]
) -> None:
    episodes: Episodes = make_episodes(1, size=4)
    loss = training_loss(make_learner(MatchingNet, flat((1, 4, 4)), scale=3.0), next(iter(episodes)))
    query, support = episodes.query_x[0].flatten(1), episodes.support_x[0].flatten(1)
    p = direct_probabilities(query, support, episodes.support_y[0], 3, 3.0)
    expected = -sum(math.log(p[m, label]) for m, label in enumerate(episodes.query_y[0].tolist())) / len(p)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_the_length_of_a_vector_is_irrelevant() -> None:
    query, support = vectors(4, 1), vectors(6, 2)
    expected = attended_labels(query, support, LABELS, 3, 5.0)
    lengths = torch.logspace(-2, 3, 6, dtype=torch.float64).unsqueeze(1)
    for other in (
        attended_labels(query * lengths[:4], support, LABELS, 3, 5.0),
        attended_labels(query, support * lengths, LABELS, 3, 5.0),
    ):
        torch.testing.assert_close(other, expected, rtol=1e-10, atol=1e-10)


def test_scale_1_limits_the_confidence_of_a_5_way_1_shot_prediction() -> None:
    direction = vectors(1, 1)
    support = torch.cat([direction, -direction.repeat(4, 1)])
    cap = math.e**2 / (math.e**2 + 4)
    assert cap == pytest.approx(0.65, abs=0.005)
    best = attended_labels(direction, support, torch.arange(5), 5, 1.0).exp()
    assert float(best[0, 0]) == pytest.approx(cap, rel=1e-12)
    anything = attended_labels(vectors(200, 2), vectors(5, 3), torch.arange(5), 5, 1.0).exp()
    assert float(anything.max()) <= cap
    assert float(attended_labels(direction, support, torch.arange(5), 5, 10.0).exp()[0, 0]) > 0.999


def test_probabilities_that_underflow_keep_a_finite_loss_and_gradient() -> None:
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    support = torch.tensor([[1.0, 0.0], [-1.0, 0.1]])
    score = attended_labels(query, support, torch.arange(2), 2, 1000.0)[0, 1]
    assert score.item() == pytest.approx(-1000 * (1 + 1 / math.sqrt(1.01)), rel=1e-4)
    score.backward()
    assert query.grad is not None
    assert bool(torch.isfinite(query.grad).all())


@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_the_order_of_the_support_set_is_irrelevant_without_full_context(
    make_learner: Make, make_episodes: Make, norm: str
) -> None:
    before, after = predictions_before_and_after_reordering(make_learner(MatchingNet, norm=norm), make_episodes(2))
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


def test_the_order_of_the_support_set_matters_to_full_context(make_learner: Make, make_episodes: Make) -> None:
    learner = make_learner(MatchingNet, norm="batch", fce=True)
    before, after = predictions_before_and_after_reordering(learner, make_episodes(2))
    assert (before - after).abs().max() > 1e-6


def predictions_before_and_after_reordering(learner: MatchingNet, episodes: Episodes) -> list[Tensor]:
    return [
        predict(
            learner, replace(episodes, support_x=episodes.support_x[:, i], support_y=episodes.support_y[:, i]), 0, 0
        )
        for i in (torch.arange(6), ORDER)
    ]


def test_full_context_learns_all_its_weights(make_learner: Make, make_episodes: Make) -> None:
    learner = make_learner(MatchingNet, norm="batch", fce=True)
    names = [name for name, _ in learner.named_parameters() if name.startswith("context.")]
    assert len(names) == 12
    learner.train_step(make_episodes(2))
    for name in names:
        gradient = learner.get_parameter(name).grad
        assert gradient is not None, name
        assert gradient.abs().max() > 0, name


def test_without_full_context_there_is_nothing_to_learn_but_the_backbone(make_learner: Make) -> None:
    assert all(name.startswith("backbone.") for name, _ in make_learner(MatchingNet).named_parameters())


def test_full_context_sees_the_support_set_from_the_query() -> None:
    torch.manual_seed(0)
    context = FullContext(5, steps=3).double()
    query = vectors(4, 1)
    support, embedded = context(vectors(6, 2), query)
    assert support.shape == (6, 5)
    assert embedded.shape == (4, 5)
    assert (embedded - context(vectors(6, 3), query)[1]).abs().max() > 1e-6
    torch.testing.assert_close(context(vectors(6, 2), query[:1])[1], embedded[:1], rtol=1e-12, atol=1e-12)


def test_each_processing_step_changes_the_query_embedding() -> None:
    results = []
    for steps in (1, 2, 3):
        torch.manual_seed(0)
        results.append(FullContext(5, steps).double()(vectors(6, 2), vectors(4, 1))[1])
    assert (results[0] - results[1]).abs().max() > 1e-4
    assert (results[1] - results[2]).abs().max() > 1e-4
