"""Baseline++ (Chen, Liu, Kira, Wang & Huang 2019, "A closer look at few-shot classification").

https://arxiv.org/abs/1904.04232; its code is https://github.com/wyharveychen/CloserLookFewShot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from metabench.api import Support
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.base_classes import OnBaseClasses
from metabench_plugins.algorithms.classifier import ClassifierConfig, new_layer, support_batches


class ClassifierCosineConfig(ClassifierConfig):
    """Parameters of `ClassifierCosine`, by default those of the authors' code.

    Attributes:
        scale: factor of the cosine; by default, 2 for up to 200 classes, and 10 for more.
    """

    # The authors take 2 or 10.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **ClassifierConfig.search_space,
        "scale": Float(1, 30, log=True),
    }

    scale: PositiveFloat | None = None


class CosineClasses(nn.Module):
    """A classifier by cosines, each times a learnt length of its class and a scale.

    Args:
        features: length of the features.
        count: number of classes.
        scale: the scale.
    """

    def __init__(self, features: int, count: int, scale: float) -> None:
        super().__init__()
        self.classes = weight_norm(nn.Linear(features, count, bias=False))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the [B, count] scores of [B, features] features."""
        scores: Tensor = self.scale * self.classes(F.normalize(x, dim=1))
        return scores


@dataclass(frozen=True)
class CosineLayer:
    """A cosine classifier of the N classes of an episode.

    Attributes:
        weight: [N, D] weights, each of the learnt length of its class.
        scale: factor of all scores.
    """

    weight: Tensor
    scale: float

    def __call__(self, x: Tensor) -> Tensor:
        """Return [n, N] scores of [n, D] features."""
        return self.scale * (F.normalize(x, dim=1) @ self.weight.T)


class ClassifierCosine(OnBaseClasses):
    """Trains the network as a cosine classifier of all training classes, then a new cosine layer for each episode.

    The network stays as it is in an episode: SGD trains direction and length of each class's weights on the features of
    the support set.
    """

    Config = ClassifierCosineConfig

    def new_classes(self, features: int, count: int) -> nn.Module:
        """See `OnBaseClasses.new_classes`."""
        return CosineClasses(features, count, self._scale(count))

    def adapt(self, support: Support) -> CosineLayer:
        """Train a new layer on [S, D] features (section 3.3)."""
        config, scale = self.config, self._scale(support.way)
        direction = new_layer(support.way, support.x)[:, :-1]
        length = direction.norm(dim=1, keepdim=True)
        x, y = F.normalize(support.x, dim=1), F.one_hot(support.y, support.way).to(support.x.dtype)
        velocities: tuple[Tensor, Tensor] | None = None
        for batch in support_batches(config, support):
            norm = direction.norm(dim=1, keepdim=True)
            unit = direction / norm
            # The gradient of the mean cross-entropy, written out, by w = length · unit, and of it by both.
            errors = (scale * x[batch] @ (length * unit).T).softmax(dim=1) - y[batch]
            of_weight = errors.T @ x[batch] * (scale / len(batch))
            of_length = (of_weight * unit).sum(dim=1, keepdim=True)
            of_direction = (of_weight - of_length * unit) * (length / norm)
            decay, momentum = config.test_weight_decay, config.test_momentum
            slopes = of_direction + decay * direction, of_length + decay * length
            if velocities is None:
                velocities = slopes
            else:
                velocities = (
                    torch.lerp(slopes[0], velocities[0], momentum),
                    torch.lerp(slopes[1], velocities[1], momentum),
                )
            direction = direction - config.test_lr * velocities[0]
            length = length - config.test_lr * velocities[1]
        return CosineLayer(length * F.normalize(direction, dim=1), scale)

    def answer(self, layer: CosineLayer, query: Tensor) -> Tensor:
        """Return the layer's [M, N] scores of [M, D] features."""
        return layer(query)

    def _scale(self, classes: int) -> float:
        given: float | None = self.config.scale
        if given is not None:
            return given
        return 2.0 if classes <= 200 else 10.0
