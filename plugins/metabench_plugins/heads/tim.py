"""TIM-GD (Boudiaf et al. 2020, "Transductive information maximization", https://arxiv.org/abs/2008.11297)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Support, at_test
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.protonet import class_means
from metabench_plugins.algorithms.transformed import Transform
from metabench_plugins.heads.adam import descended
from metabench_plugins.heads.cosines import Cosines
from metabench_plugins.heads.head import Head, HeadConfig


class TIMConfig(HeadConfig):
    """Parameters of `TIM`, by default those of the authors' code.

    easyfsl's are 50 steps, scale 10, and a cross-entropy of weight 1.

    Attributes:
        steps: steps of Adam.
        lr: learning rate of Adam.
        scale: factor τ of the cosine.
        cross_entropy: weight λ of the cross-entropy of the support set.
        marginal_entropy: weight of the entropy of the queries' mean prediction, which is maximised.
        conditional_entropy: weight α of the mean entropy of the queries' predictions, which is minimised.
    """

    # Around the authors' values.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **HeadConfig.search_space,
        "lr": Float(1e-5, 1e-3, log=True),
        "scale": Float(5, 30, log=True),
        "cross_entropy": Float(0.01, 1, log=True),
        "conditional_entropy": Float(0.01, 1, log=True),
    }

    transform: Transform = at_test("L2N")
    steps: int = at_test(1000, ge=0)
    lr: float = at_test(1e-4, gt=0)
    scale: float = at_test(15.0, gt=0)
    cross_entropy: float = at_test(0.1, ge=0)
    marginal_entropy: float = at_test(1.0, ge=0)
    conditional_entropy: float = at_test(0.1, ge=0)


class TIM(Head):
    """Moves the class means so that predictions of queries are sure, and as frequent for each class (equation 3).

    Transductive. As in easyfsl, classes are scored by cosine; the authors' code scores by squared distance.
    """

    Config = TIMConfig

    def adapt(self, support: Support) -> Support:
        """Return the support set of transformed features."""
        return replace(support, x=self.transformed(support.x))

    def answer(self, support: Support, query: Tensor) -> Tensor:
        """Return the [M, N] scores by the moved means."""
        config, shots = self.config, len(support.x)
        cosines = Cosines(torch.cat([support.x, self.transformed(query)]), config.scale)
        labels = F.one_hot(support.y, support.way).T.to(query.dtype)

        def slope(weight: Tensor) -> Tensor:
            scores = cosines.scores(weight)
            logarithms = scores.log_softmax(dim=0)
            errors = logarithms[:, :shots].exp() - labels
            of_support = config.cross_entropy / shots * errors
            of_query = entropy_slopes(logarithms[:, shots:], config.marginal_entropy, config.conditional_entropy)
            return cosines.slope(weight, scores, torch.cat([of_support, of_query], dim=1))

        means = class_means(support.x, support.y, support.way)
        weight = descended(means, slope, config.steps, config.lr)
        return cosines.scores(weight)[:, shots:].T


def entropy_slopes(logarithms: Tensor, marginal: float, conditional: float) -> Tensor:
    """Return the [N, M] gradient of the weighted entropies of predictions, by the scores.

    That is of `conditional` times the mean entropy of predictions, minus `marginal` times the entropy of their mean.

    Args:
        logarithms: [N, M] log-probabilities of the classes for each query.
        marginal: weight of the entropy of the mean prediction.
        conditional: weight of the mean entropy.
    """
    chances = logarithms.exp()
    # A class without a share: the smallest number has a logarithm.
    shares = chances.mean(dim=1, keepdim=True).clamp_min(torch.finfo(chances.dtype).tiny)
    of_chances = marginal * shares.log() - conditional * logarithms
    return chances * (of_chances - (chances * of_chances).sum(dim=0)) / chances.shape[1]
