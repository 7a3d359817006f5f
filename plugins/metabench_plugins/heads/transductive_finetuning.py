"""Transductive fine-tuning (Dhillon, Chaudhari, Ravichandran & Soatto 2020, https://arxiv.org/abs/1909.02729)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Support, at_test
from metabench.specs import Float, Integer, SearchRange
from metabench_plugins.algorithms.protonet import class_means, squared_distances, squared_lengths
from metabench_plugins.heads.adam import descended
from metabench_plugins.heads.head import Head, HeadConfig
from metabench_plugins.heads.tim import entropy_slopes


class TransductiveFinetuningConfig(HeadConfig):
    """Parameters of `TransductiveFinetuning`, the paper's and easyfsl's.

    Attributes:
        steps: steps of Adam.
        lr: learning rate of Adam.
    """

    # Around the paper's rate and steps.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **HeadConfig.search_space,
        "steps": Integer(5, 100),
        "lr": Float(1e-6, 1e-3, log=True),
    }

    steps: int = at_test(25, ge=0)
    lr: float = at_test(5e-5, gt=0)


class TransductiveFinetuning(Head):
    """Lowers the cross-entropy of the support set and the entropy of the queries' predictions (equation 8).

    Transductive. The paper trains the network, too; on features, as in easyfsl, only the class means move, and a class
    is scored by the negative distance to its mean.
    """

    Config = TransductiveFinetuningConfig

    def adapt(self, support: Support) -> Support:
        """Return the support set of transformed features."""
        return replace(support, x=self.transformed(support.x))

    def answer(self, support: Support, query: Tensor) -> Tensor:
        """Return the [M, N] scores by the moved means."""
        shots, query = len(support.x), self.transformed(query)
        x = torch.cat([support.x, query])
        labels = F.one_hot(support.y, support.way).T.to(x.dtype)
        squares = squared_lengths(query)  # once: the features are much larger than all else in a step

        def slope(weight: Tensor) -> Tensor:
            distances = torch.cat(
                [exact_distances(weight, support.x), distances_between(weight, query, squares)], dim=1
            )
            logarithms = (-distances).log_softmax(dim=0)
            errors = logarithms[:, :shots].exp() - labels
            slopes = torch.cat([errors / shots, entropy_slopes(logarithms[:, shots:], 0.0, 1.0)], dim=1)
            # Of a distance d between x and w the gradient by w is (w - x) / d, and zero where they meet.
            pulls = torch.where(distances > 0, slopes / distances, 0.0)
            return pulls @ x - pulls.sum(dim=1, keepdim=True) * weight

        means = class_means(support.x, support.y, support.way)
        weight = descended(means, slope, self.config.steps, self.config.lr)
        return -distances_between(weight, query, squares).T


def distances_between(a: Tensor, b: Tensor, squares: Tensor) -> Tensor:
    """Return the [n, m] Euclidean distances of the rows, by products: twice as fast as `exact_distances`.

    Arguments as of `squared_distances`.
    """
    return squared_distances(a, b, squares).clamp_min(0).sqrt()


def exact_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the [n, m] Euclidean distances of the rows, also where an image is the mean of its class."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
