"""RFS: the regression of distorted copies against scikit-learn, and the loss of a student against its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Algorithm, CellFailed, Classification, Config, Images, Setup, Support, Unfit
from metabench_plugins.algorithms.protonet import ProtoNet, ProtoNetConfig
from metabench_plugins.algorithms.rfs import RFS, RFSConfig
from metabench_plugins.backbones.identity import Identity

CLASSES, FEATURES = 7, 5


def learner(teacher: Algorithm | None = None, seed: int = 0, **params: Any) -> RFS:
    torch.manual_seed(seed)
    setup = Setup(Identity(Config(), (FEATURES,)), None, None, 10, teacher=teacher, train_classes=CLASSES)
    return RFS(RFSConfig(**params), setup).double()


def features(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def support() -> Support:
    y = torch.tensor([0, 1, 2, 0, 1, 1])
    return Support(features(len(y)), y, Classification(3))


def unit(x: Tensor) -> np.ndarray[Any, Any]:
    return F.normalize(x, dim=1).numpy()


def test_the_regression_is_fitted_to_the_distorted_copies_of_the_support_set() -> None:
    copies = [features(6, seed) for seed in range(5)]
    drawn, given, query, ours = iter(copies), support(), features(4, 9), learner()
    ours.distort = lambda x: x + next(drawn)
    scores = ours.answer(ours.adapt(given), query)
    x, y = unit(torch.cat([given.x + copy for copy in copies])), given.y.repeat(5).numpy()
    reference = LogisticRegression(tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(scores.numpy(), reference.decision_function(unit(query)), rtol=0, atol=1e-4)


def test_without_copies_it_reads_features_of_the_support_set() -> None:
    given, query, ours = support(), features(4, 9), learner(views=0)
    assert (ours.reads, learner().reads) == ("features", "images")
    scores = ours.answer(ours.adapt(given), query)
    reference = LogisticRegression(tol=1e-10, max_iter=10_000).fit(unit(given.x), given.y.numpy())
    np.testing.assert_allclose(scores.numpy(), reference.decision_function(unit(query)), rtol=0, atol=1e-4)


def test_copies_without_distortions_are_refused() -> None:
    with pytest.raises(
        CellFailed, match=r"views: 5 distorts .* name distortions in its train.augment, or set views: 0"
    ):
        learner().adapt(support())


@pytest.mark.parametrize("views", [0, 5])
def test_a_student_learns_labels_and_its_teacher_s_predictions(views: int) -> None:
    teacher = learner(seed=3)
    ours, x, y = (
        learner(teacher, views=views, distillation=0.3, temperature=3.0),
        features(8),
        torch.arange(8) % CLASSES,
    )
    assert teacher.classes is not None
    assert ours.classes is not None
    own, taught = ours.classes(x), teacher.classes(x)
    log_student, log_teacher = (scores.div(3).log_softmax(dim=1) for scores in (own, taught))
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1).mean()
    expected = 0.7 * F.cross_entropy(own, y) + 0.3 * 9 * divergence
    loss = ours.image_loss(Images(x, y, CLASSES))
    assert loss.detach().item() == pytest.approx(expected.detach().item(), rel=1e-12)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any("teacher" in name for name in ours.state_dict())


def test_a_teacher_has_to_be_a_classifier_of_the_training_classes() -> None:
    setup = Setup(Identity(Config(), (FEATURES,)), None, None, 10)
    with pytest.raises(Unfit, match="a classifier of the same 7 training classes, such as rfs or classifier"):
        learner(ProtoNet(ProtoNetConfig(), setup))
