from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from metabench.analysis.metrics import credit
from metabench.api import Backbone, Classification, Episodes, Support
from metabench.api.algorithms import training_loss
from metabench.engine.asking import predict
from metabench_plugins.algorithms.siamese import Siamese, SiameseConfig, draw_pairs

Make = Callable[..., Any]
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1, 0, 2])


def probability(learner: Siamese, a: Tensor, b: Tensor) -> float:
    """Return Koch's p of two flat images, number by number."""
    embeddings = []
    for x in (a.tolist(), b.tolist()):
        rows = zip(learner.dense.weight.tolist(), learner.dense.bias.tolist(), strict=True)
        embeddings.append([sigmoid(bias + sum(w * v for w, v in zip(row, x, strict=True))) for row, bias in rows])
    weights, bias = learner.distance.weight[0].tolist(), learner.distance.bias.tolist()[0]
    return sigmoid(bias + sum(w * abs(p - q) for w, p, q in zip(weights, *embeddings, strict=True)))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def spread_out(learner: Siamese) -> Siamese:
    """Make the weights large, so that probabilities are far from one half."""
    torch.nn.init.normal_(learner.dense.weight)
    torch.nn.init.normal_(learner.distance.weight, std=2.0)
    return learner


def test_similarity_is_symmetric(make_learner: Make) -> None:
    learner = spread_out(make_learner(Siamese))
    a, b = torch.rand(2, 7, 8, dtype=torch.float64)
    assert torch.equal(learner.similarity(a, b), learner.similarity(b, a))
    assert learner.similarity(a, b).std() > 0.1


@pytest.mark.parametrize("pairs", [2, 8, 400])
def test_half_of_the_pairs_are_two_different_drawings_of_one_class(pairs: int) -> None:
    torch.manual_seed(0)
    first, second = draw_pairs(LABELS, pairs)
    assert first.shape == second.shape == (pairs,)
    same = LABELS[first] == LABELS[second]
    assert same.tolist() == [True] * (pairs // 2) + [False] * (pairs // 2)
    assert not bool((first == second).any())


def test_every_possible_pair_is_drawn() -> None:
    torch.manual_seed(0)
    first, second = draw_pairs(LABELS, 4000)
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == len(LABELS) * (len(LABELS) - 1)


def test_the_loss_is_the_cross_entropy_of_the_pairs_probabilities(
    make_learner: Make, make_episodes: Make, flat: Callable[..., Backbone]
) -> None:
    episodes: Episodes = make_episodes(1, size=4)
    learner = spread_out(make_learner(Siamese, flat((1, 4, 4)), pairs=6))
    torch.manual_seed(5)
    loss = training_loss(learner, next(iter(episodes)))
    torch.manual_seed(5)
    labels = torch.cat([episodes.support_y[0], episodes.query_y[0]])
    first, second = draw_pairs(labels, 6)
    x = torch.cat([episodes.support_x[0], episodes.query_x[0]]).flatten(1)
    total = 0.0
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        p = probability(learner, x[i], x[j])
        total -= math.log(p if labels[i] == labels[j] else 1 - p)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(total / 6, rel=1e-12)


def test_an_odd_number_of_pairs_is_refused() -> None:
    with pytest.raises(ValidationError, match="pairs"):
        SiameseConfig(pairs=7)


@pytest.mark.parametrize("shot", [1, 2, 3])
def test_a_similarity_that_is_constant_gives_equal_scores_and_earns_chance(
    make_learner: Make, make_episodes: Make, shot: int
) -> None:
    learner = make_learner(Siamese)
    torch.nn.init.zeros_(learner.distance.weight)
    episodes: Episodes = make_episodes(3, way=4, shot=shot)
    scores = predict(learner, episodes, 0, 0)
    assert torch.equal(scores, scores[..., :1].expand_as(scores))
    assert credit(scores.detach().numpy(), episodes.query_y.numpy()).mean(axis=1).tolist() == [0.25] * 3


@pytest.mark.parametrize("shot", [1, 3])
def test_a_class_is_as_similar_as_its_support_images_on_average(
    make_learner: Make, make_episodes: Make, flat: Callable[..., Backbone], shot: int
) -> None:
    episodes: Episodes = make_episodes(1, shot=shot, size=4)
    learner = spread_out(make_learner(Siamese, flat((1, 4, 4))))
    scores = predict(learner, episodes, 0, 0)[0]
    for m, query in enumerate(episodes.query_x[0].flatten(1)):
        for c in range(3):
            members = episodes.support_x[0, episodes.support_y[0] == c].flatten(1)
            mean = sum(probability(learner, query, member) for member in members) / shot
            # The logarithm of the number of images is in float32.
            assert float(scores[m, c].exp()) == pytest.approx(mean, rel=1e-6)


def test_the_order_of_the_support_set_is_irrelevant(make_learner: Make, make_episodes: Make) -> None:
    episodes: Episodes = make_episodes(2)
    learner = make_learner(Siamese, norm="batch")
    before, after = (
        predict(
            learner, replace(episodes, support_x=episodes.support_x[:, i], support_y=episodes.support_y[:, i]), 0, 0
        )
        for i in (torch.arange(6), torch.tensor([4, 1, 0, 5, 3, 2]))
    )
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


def test_similarities_near_one_do_not_tie(make_learner: Make, flat: Callable[..., Backbone]) -> None:
    learner = make_learner(Siamese, flat((1, 1, 1)), dtype=torch.float32)
    torch.nn.init.constant_(learner.dense.weight, 1.0)
    torch.nn.init.constant_(learner.distance.weight, -1.0)
    torch.nn.init.constant_(learner.distance.bias, 30.0)
    support, query = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.1]])
    state = learner.adapt(Support(support.reshape(2, 1), torch.tensor([0, 1]), Classification(2)))
    scores = learner.answer(state, query.reshape(1, 1)).detach()
    assert float(scores[0, 0]) > float(scores[0, 1])
