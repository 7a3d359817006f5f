"""Fine-tuned cosine classifier, as Baseline++ at test (Chen et al. 2019, https://arxiv.org/abs/1904.04232).

It begins with the class means, and not at random as the paper's: the classifier of easyfsl's `Finetune`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from metabench.api import Support, at_test
from metabench.specs import Float, Integer, SearchRange
from metabench_plugins.algorithms.protonet import class_means
from metabench_plugins.heads.adam import descended
from metabench_plugins.heads.cosines import Cosines
from metabench_plugins.heads.head import Head, HeadConfig


class FinetuningConfig(HeadConfig):
    """Parameters of `Finetuning`, by default those of easyfsl 1.5.0 but for the scale, which is 1 there.

    Attributes:
        steps: steps of Adam.
        lr: learning rate of Adam.
        scale: factor of the cosine; Chen et al. take 2 or 10.
    """

    # Around easyfsl's values, and the scales of Chen et al. 2019.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **HeadConfig.search_space,
        "steps": Integer(25, 400),
        "lr": Float(1e-5, 1e-2, log=True),
        "scale": Float(1, 30, log=True),
    }

    steps: int = at_test(200, ge=0)
    lr: float = at_test(1e-4, gt=0)
    scale: float = at_test(10.0, gt=0)


@dataclass(frozen=True)
class CosineLayer:
    """A cosine classifier of the N classes of an episode.

    Attributes:
        weight: [N, D] class weights.
        scale: factor of the cosine.
    """

    weight: Tensor
    scale: float

    def __call__(self, x: Tensor) -> Tensor:
        """Return [n, N] scores of [n, D] features."""
        return Cosines(x, self.scale).scores(self.weight).T


class Finetuning(Head):
    """Trains class weights on the support set, from the class means on."""

    Config = FinetuningConfig

    def adapt(self, support: Support) -> CosineLayer:
        """Return the classifier after steps of Adam on the cross-entropy of the support set."""
        config, x = self.config, self.transformed(support.x)
        cosines, labels = Cosines(x, config.scale), F.one_hot(support.y, support.way).T.to(x.dtype)

        def slope(weight: Tensor) -> Tensor:
            scores = cosines.scores(weight)
            return cosines.slope(weight, scores, (scores.softmax(dim=0) - labels) / len(x))

        weight = descended(class_means(x, support.y, support.way), slope, config.steps, config.lr)
        return CosineLayer(weight, config.scale)

    def answer(self, layer: CosineLayer, query: Tensor) -> Tensor:
        """Return the classifier's [M, N] scores of [M, D] features."""
        return layer(self.transformed(query))
