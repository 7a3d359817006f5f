from __future__ import annotations

import copy

import pytest
import torch
from metabench_boil.algorithm import BOIL, BOILConfig
from torch.nn import functional as F

from metabench.api import Classification, Episode, Setup, Support, Unfit
from metabench.testing import AlgorithmChecks, SmallNetwork


class TestBOIL(AlgorithmChecks):
    algorithm = "boil"


def boil(**params: float) -> BOIL:
    torch.manual_seed(0)
    return BOIL(BOILConfig.model_validate(params), Setup(SmallNetwork(), 2, 2, 1))


def episode() -> Episode:
    torch.manual_seed(1)
    labels = torch.tensor([0, 1, 0, 1])
    return Episode(Support(torch.randn(4, 1, 20, 20), labels, Classification(2)), torch.randn(4, 1, 20, 20), labels)


def test_the_inner_loop_is_gradient_descent_on_the_backbone_alone() -> None:
    learner, drawn = boil(inner_lr=0.1, inner_steps=2).eval(), episode()
    expected = copy.deepcopy(learner)
    optimiser = torch.optim.SGD(expected.backbone.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        F.cross_entropy(expected(drawn.support.x), drawn.support.y).backward()
        optimiser.step()
    scores = learner.answer(learner.adapt(drawn.support), drawn.query_x)
    torch.testing.assert_close(scores, expected(drawn.query_x), rtol=1e-4, atol=1e-6)


def test_the_second_derivatives_make_a_difference_to_the_gradient() -> None:
    slopes = []
    for first_order in (False, True):
        learner = boil(first_order=first_order).train()
        learner.episode_loss(episode()).backward()
        slopes.append(learner.backbone.first.weight.grad)
    assert not torch.allclose(slopes[0], slopes[1])


@pytest.mark.parametrize(("frozen", "train_way"), [(True, 2), (False, 3)])
def test_a_frozen_backbone_and_another_training_way_are_refused(frozen: bool, train_way: int) -> None:
    with pytest.raises(Unfit, match=r"frozen|way"):
        BOIL(BOILConfig(), Setup(SmallNetwork(frozen=frozen), 2, train_way, 1))
