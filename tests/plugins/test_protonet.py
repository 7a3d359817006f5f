from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from metabench.api import Backbone, Episodes
from metabench.api.algorithms import training_loss
from metabench.engine.asking import predict
from metabench_plugins.algorithms.protonet import ProtoNet, class_means, squared_distances

Make = Callable[..., Any]


def test_scores_are_negative_squared_distances_to_the_class_means(
    make_learner: Make, make_episodes: Make, flat: Callable[..., Backbone]
) -> None:
    episodes: Episodes = make_episodes(1, shot=3, size=4)
    scores = predict(make_learner(ProtoNet, flat((1, 4, 4))), episodes, 0, 0)
    support, query = episodes.support_x[0].flatten(1), episodes.query_x[0].flatten(1)
    for m in range(len(query)):
        for c in range(episodes.way):
            prototype = support[episodes.support_y[0] == c].mean(dim=0)
            expected = -sum((float(q) - float(p)) ** 2 for q, p in zip(query[m], prototype, strict=True))
            assert float(scores[0, m, c]) == pytest.approx(expected, rel=1e-12)


def test_the_distance_is_squared_and_not_its_root() -> None:
    origin, far = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    assert squared_distances(origin, far).tolist() == [[25.0]]
    assert squared_distances(origin, 2 * far).tolist() == [[100.0]]


def test_with_one_shot_the_prototype_is_the_embedding() -> None:
    features = torch.rand(3, 5, dtype=torch.float64)
    torch.testing.assert_close(class_means(features, torch.tensor([2, 0, 1]), 3), features[[1, 2, 0]], rtol=0, atol=0)


def test_prototypes_of_classes_of_different_size_are_their_own_means() -> None:
    features = torch.rand(4, 5, dtype=torch.float64)
    means = class_means(features, torch.tensor([1, 0, 1, 1]), 2)
    torch.testing.assert_close(means, torch.stack([features[1], features[[0, 2, 3]].mean(dim=0)]))


@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_the_order_of_the_support_set_is_irrelevant(make_learner: Make, make_episodes: Make, norm: str) -> None:
    episodes: Episodes = make_episodes(2)
    learner = make_learner(ProtoNet, norm=norm)
    order = torch.tensor([4, 1, 0, 5, 3, 2])
    before, after = (
        predict(
            learner, replace(episodes, support_x=episodes.support_x[:, i], support_y=episodes.support_y[:, i]), 0, 0
        )
        for i in (torch.arange(6), order)
    )
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


def test_it_may_train_with_more_ways_than_it_is_tested_with(make_learner: Make, make_episodes: Make) -> None:
    learner = make_learner(ProtoNet, way=3, train_way=6)
    before = [parameter.clone() for parameter in learner.parameters()]
    learner.train_step(make_episodes(2, way=6))
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))
    test: Episodes = make_episodes(2, way=3, seed=1)
    assert predict(learner, test, 0, 0).shape == (2, 6, 3)


@pytest.mark.parametrize("way", [2, 3, 5])
def test_the_loss_is_log_n_when_all_distances_are_equal(make_learner: Make, make_episodes: Make, way: int) -> None:
    episodes: Episodes = make_episodes(2, way=way)
    same = torch.ones_like
    learner = make_learner(ProtoNet, way=way)
    loss = learner.train_step(replace(episodes, support_x=same(episodes.support_x), query_x=same(episodes.query_x)))[
        "loss"
    ]
    assert loss.item() == pytest.approx(math.log(way), rel=1e-12)


def test_the_loss_is_the_cross_entropy_of_the_scores(
    make_learner: Make, make_episodes: Make, flat: Callable[..., Backbone]
) -> None:
    episodes: Episodes = make_episodes(1, size=4)
    learner = make_learner(ProtoNet, flat((1, 4, 4)))
    scores = predict(learner, episodes, 0, 0)[0]
    loss = training_loss(learner, next(iter(episodes)))
    probabilities = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    expected = -probabilities[torch.arange(6), episodes.query_y[0]].log().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_the_learning_rate_halves_after_so_many_steps(make_learner: Make, make_episodes: Make) -> None:
    learner = make_learner(ProtoNet, lr=0.01, schedule="step", decay_every=2)
    rates = []
    for _ in range(5):
        rates.append(learner.training_state()["optimiser"]["param_groups"][0]["lr"])
        learner.train_step(make_episodes(1))
    assert rates == [0.01, 0.01, 0.005, 0.005, 0.0025]
    assert (ProtoNet.Config().schedule, ProtoNet.Config().decay_every, ProtoNet.Config().decay) == ("step", 2000, 0.5)
