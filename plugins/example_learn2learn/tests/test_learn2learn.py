from __future__ import annotations

from typing import ClassVar

import pytest

pytest.importorskip("learn2learn", reason="learn2learn is not installed: README.md says how to build it")

import torch
from metabench_learn2learn.algorithms import MAML as LearnedMAML
from metabench_learn2learn.algorithms import Kronecker, Learner, LearnerConfig, MetaSGD

from metabench.api import Algorithm, Classification, Episodes, Setup, Unfit
from metabench.testing import AlgorithmChecks, SmallNetwork
from metabench_plugins.algorithms.maml import MAML, MAMLConfig


class TestMAML(AlgorithmChecks):
    algorithm = "l2l-maml"


class TestMetaSGD(AlgorithmChecks):
    algorithm = "l2l-metasgd"


class TestKronecker(AlgorithmChecks):
    algorithm = "l2l-kronecker"
    # At the rate of MAML, the learnt factors make single episodes diverge: right answers, and no probabilities.
    params: ClassVar[dict[str, float]] = {"inner_lr": 0.1}


PARAMS = {"inner_lr": 0.4, "inner_steps": 2, "test_inner_steps": 3, "lr": 1e-2}
#: Number of updates compared.
UPDATES = 10


def learner(cls: type[Learner], **params: float) -> Learner:
    torch.manual_seed(0)
    return cls(LearnerConfig.model_validate({**PARAMS, **params}), Setup(SmallNetwork(), 3, 3, UPDATES)).double()


def built_in(**params: float) -> MAML:
    torch.manual_seed(0)
    return MAML(MAMLConfig.model_validate({**PARAMS, **params}), Setup(SmallNetwork(), 3, 3, UPDATES)).double()


def episodes(number: int) -> Episodes:
    generator = torch.Generator().manual_seed(number)

    def images(count: int) -> torch.Tensor:
        return torch.rand(2, count, 1, 20, 20, generator=generator, dtype=torch.float64)

    labels = torch.arange(3).repeat(2, 2)
    return Episodes(images(6), labels, images(6), labels, Classification(3))


def trained(algorithm: Algorithm) -> list[float]:
    """Return the losses of the first updates."""
    return [float(algorithm.train_step(episodes(number))["loss"]) for number in range(UPDATES)]


@pytest.mark.parametrize("first_order", [False, True])
def test_maml_is_the_built_in_one_over_the_first_updates(first_order: bool) -> None:
    ours, theirs = built_in(first_order=first_order), learner(LearnedMAML, first_order=first_order)
    assert trained(theirs) == pytest.approx(trained(ours), abs=1e-6)
    weights = dict(ours.named_parameters())
    for name, value in theirs.learner.module.named_parameters():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=1e-6)


def test_an_untrained_meta_sgd_and_kronecker_adapt_as_maml() -> None:
    drawn = next(iter(episodes(0)))
    scores = []
    for algorithm in (built_in(), learner(MetaSGD), learner(Kronecker)):
        algorithm.eval()
        with torch.no_grad():
            scores.append(algorithm.answer(algorithm.adapt(drawn.support), drawn.query_x))
    torch.testing.assert_close(scores[1], scores[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(scores[2], scores[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("cls", [MetaSGD, Kronecker])
def test_learning_rates_and_factors_are_learnt(cls: type[Learner]) -> None:
    algorithm = learner(cls)
    inner = {id(value) for value in algorithm.learner.module.parameters()}
    before = {name: value.clone() for name, value in algorithm.named_parameters() if id(value) not in inner}
    trained(algorithm)
    after = dict(algorithm.named_parameters())
    assert before
    assert all(not torch.equal(value, after[name]) for name, value in before.items())


def test_another_way_in_training_is_refused() -> None:
    with pytest.raises(Unfit, match=r"train\.way \(4\) must be the tested way \(3\)"):
        MetaSGD(LearnerConfig(), Setup(SmallNetwork(), 3, 4, 1))
