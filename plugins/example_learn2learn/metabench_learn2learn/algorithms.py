"""learn2learn's learners: each clones a network, and adapts the clone (https://github.com/learnables/learn2learn)."""

from __future__ import annotations

import abc
from typing import Any

import learn2learn as l2l
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from metabench.api import Algorithm, AlgorithmConfig, Setup, Support, Unfit, at_test, embed_queries


class LearnerConfig(AlgorithmConfig):
    """Parameters of learn2learn's learners.

    Attributes:
        inner_lr: learning rate of the inner loop, for the mean cross-entropy; of Meta-SGD, the initial ones.
        inner_steps: inner-loop steps in training.
        test_inner_steps: inner-loop steps at test.
        first_order: whether to leave out the second derivatives.
    """

    inner_lr: PositiveFloat = 0.4
    inner_steps: PositiveInt = 1
    test_inner_steps: int = at_test(3, ge=0)
    first_order: bool = False


class Classifier(nn.Module):
    """A backbone and a linear layer."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.backbone = setup.backbone
        self.head = nn.Linear(setup.backbone.features, setup.way)

    def forward(self, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return the [n, N] scores of images; of queries, if support images are given."""
        scores: Tensor = self.head(
            self.backbone(x) if support_x is None else embed_queries(self.backbone, support_x, x)
        )
        return scores


class Learner(Algorithm):
    """An algorithm around `clone()` and `adapt()`."""

    Config = LearnerConfig

    def __init__(self, config: LearnerConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        if setup.train_way != setup.way:
            raise Unfit(f"train.way ({setup.train_way}) must be the tested way ({setup.way})")
        self.learner = self.wrap(Classifier(setup))

    @abc.abstractmethod
    def wrap(self, classifier: Classifier) -> nn.Module:
        """Return learn2learn's learner of a classifier."""

    def adapt(self, support: Support) -> tuple[Any, Tensor]:
        """Return an adapted clone, and the support images."""
        steps = self.config.inner_steps if self.training else self.config.test_inner_steps
        with torch.enable_grad():
            clone = self.learner.clone()
            for _ in range(steps):
                loss = support.task.loss(clone(support.x), support.y)
                clone.adapt(loss, first_order=self.config.first_order or not self.training)
        return clone, support.x

    def answer(self, state: tuple[Any, Tensor], query: Tensor) -> Tensor:
        """Return the [M, N] query scores of the adapted clone."""
        clone, support_x = state
        scores: Tensor = clone(query, support_x)
        return scores


class MAML(Learner):
    """Learn initial weights (Finn et al. 2017)."""

    def wrap(self, classifier: Classifier) -> nn.Module:
        """See `Learner.wrap`."""
        return l2l.algorithms.MAML(classifier, lr=self.config.inner_lr, allow_nograd=True)  # the backbone may be frozen


class MetaSGD(Learner):
    """Learn initial weights, and a learning rate for each number (Li et al. 2017)."""

    def wrap(self, classifier: Classifier) -> nn.Module:
        """See `Learner.wrap`; it asks each weight for a gradient.

        Raises:
            Unfit: the backbone is frozen.
        """
        if not all(weight.requires_grad for weight in classifier.parameters()):
            raise Unfit("learn2learn's Meta-SGD adapts every weight, and the backbone is frozen")
        return l2l.algorithms.MetaSGD(classifier, lr=self.config.inner_lr)


class Kronecker(Learner):
    """Learn initial weights, and Kronecker factors that transform inner gradients (Arnold et al. 2019)."""

    def wrap(self, classifier: Classifier) -> nn.Module:
        """See `Learner.wrap`."""
        transform = l2l.optim.KroneckerTransform(l2l.nn.KroneckerLinear)
        return l2l.algorithms.GBML(classifier, transform, lr=self.config.inner_lr, allow_nograd=True)
