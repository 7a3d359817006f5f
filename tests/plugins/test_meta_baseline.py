"""Meta-Baseline: cosines, their learnt scale, and the start from the weights of a classifier."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from metabench.api import Backbone, Classification, Setup, Support
from metabench.testing import AlgorithmChecks
from metabench_plugins.algorithms.meta_baseline import MetaBaseline, MetaBaselineConfig


class TestMetaBaseline(AlgorithmChecks):
    algorithm = "meta-baseline"


def test_scores_are_ten_times_the_cosine_to_the_class_means(flat: Callable[..., Backbone]) -> None:
    learner = MetaBaseline(MetaBaselineConfig(), Setup(flat((1, 1, 2)), None, None, 1)).double()
    support = Support(
        torch.tensor([[4.0, 0.0], [0.0, 3.0], [2.0, 8.0], [0.0, 5.0]]).double(),
        torch.tensor([0, 1, 0, 1]),
        Classification(2),
    )
    scores = learner.answer(learner.adapt(support), torch.tensor([[3.0, 4.0]]).double())
    # The means are (3, 4) and (0, 4); the query has cosine 1 and .8 to them.
    assert scores.tolist() == [pytest.approx([10.0, 8.0], rel=1e-12)]


def test_the_scale_is_trained(flat: Callable[..., Backbone]) -> None:
    learner = MetaBaseline(MetaBaselineConfig(), Setup(flat((1, 1, 2)), None, None, 1))
    assert [name for name, _ in learner.named_parameters()] == ["scale"]
    assert MetaBaselineConfig().model_dump().items() >= {"optimiser": "sgd", "lr": 1e-3, "momentum": 0.9}.items()
