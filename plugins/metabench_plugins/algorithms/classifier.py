"""Baseline (Chen, Liu, Kira, Wang & Huang 2019, "A closer look at few-shot classification").

https://arxiv.org/abs/1904.04232; its code is https://github.com/wyharveychen/CloserLookFewShot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import AlgorithmConfig, Support, at_test
from metabench.specs import Float, Integer, SearchRange
from metabench_plugins.algorithms.base_classes import OnBaseClasses


class ClassifierConfig(AlgorithmConfig):
    """Parameters of `Classifier`, by default those of the authors' code.

    Attributes:
        test_epochs: passes over the support set in which a new linear layer is trained; the paper makes 100 iterations
            (section 4.1).
        test_batch: images of a step on the support set.
        test_lr: learning rate on the support set.
        test_momentum: momentum and dampening of SGD on the support set.
        test_weight_decay: weight decay on the support set.
    """

    # The rates of training and fine-tuning, and its length, around the authors'.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "test_epochs": Integer(25, 200),
        "test_lr": Float(1e-3, 0.1, log=True),
        "test_weight_decay": Float(1e-5, 1e-2, log=True),
    }

    test_epochs: int = at_test(100, ge=0)
    test_batch: int = at_test(4, ge=1)
    test_lr: float = at_test(0.01, gt=0)
    test_momentum: float = at_test(0.9, ge=0, lt=1)
    test_weight_decay: float = at_test(1e-3, ge=0)


@dataclass(frozen=True)
class Layer:
    """A linear classifier of the N classes of an episode.

    Attributes:
        weight: [N, D + 1] weights; the last column is the bias.
    """

    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return [n, N] scores of [n, D] features."""
        return torch.addmm(self.weight[:, -1], x, self.weight[:, :-1].T)


class Classifier(OnBaseClasses):
    """Trains the network as a classifier of all training classes, then a new linear layer for each episode.

    The network stays as it is in an episode: SGD trains the layer on the features of the support set.
    """

    Config = ClassifierConfig

    def adapt(self, support: Support) -> Layer:
        """Train a new layer on [S, D] features (section 3.2)."""
        weight = new_layer(support.way, support.x)
        config, batches = self.config, support_batches(self.config, support)
        x = torch.cat([support.x, support.x.new_ones(len(support.x), 1)], dim=1)
        y = F.one_hot(support.y, support.way).to(x.dtype)
        velocity: Tensor | None = None
        for batch in batches:
            chosen = x[batch]
            # The gradient of the mean cross-entropy, written out: a fifth of autograd's time for 25 images.
            errors = (chosen @ weight.T).softmax(dim=1) - y[batch]
            slope = torch.addmm(weight, errors.T, chosen, beta=config.test_weight_decay, alpha=1 / len(batch))
            if velocity is None:
                velocity = slope
            else:
                velocity = velocity * config.test_momentum + slope * (1 - config.test_momentum)
            weight = weight - config.test_lr * velocity
        return Layer(weight)

    def answer(self, layer: Layer, query: Tensor) -> Tensor:
        """Return the layer's [M, N] scores of [M, D] features."""
        return layer(query)


def support_batches(config: ClassifierConfig, support: Support) -> list[Tensor]:
    """Return the numbers of the support images of each step: all images in each epoch, in random order."""
    order = [torch.randperm(len(support.y)) for _ in range(config.test_epochs)]
    return [part for epoch in order for part in torch.split(epoch.to(support.x.device), config.test_batch)]


def new_layer(way: int, features: Tensor) -> Tensor:
    """Return the [way, D + 1] weights of a new linear layer with a bias, drawn as torch's."""
    bound = 1 / math.sqrt(features.shape[1])
    drawn = torch.rand(way, features.shape[1] + 1, dtype=features.dtype).to(features.device)
    return (2 * drawn - 1) * bound
