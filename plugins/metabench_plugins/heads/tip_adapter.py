"""Tip-Adapter (Zhang et al. 2022, https://arxiv.org/abs/2207.09519)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import NonNegativeInt
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Support, at_test
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.protonet import class_means
from metabench_plugins.algorithms.views import OnViews
from metabench_plugins.heads.head import Head, HeadConfig


class TipAdapterConfig(HeadConfig):
    """Parameters of `TipAdapter`.

    The authors' code searches α and β for each dataset; here they are fixed.

    Attributes:
        views: distorted copies of each support image, whose features are averaged, 10 in the paper; 0 takes the feature
            of the image itself.
        residual: weight α of the cache beside the zero-shot scores.
        sharpness: β, how fast an image counts less with its distance.
        zero_shot: there is no text encoder: class means in the place of its class weights, or no zero-shot scores.
        scale: factor of the cosine in the zero-shot scores.
    """

    # The authors' code searches α and β.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **HeadConfig.search_space,
        "residual": Float(0.1, 10, log=True),
        "sharpness": Float(0.5, 50, log=True),
    }

    views: NonNegativeInt = 0
    residual: float = at_test(1.0, gt=0)
    sharpness: float = at_test(5.5, gt=0)
    zero_shot: Literal["none", "means"] = at_test("none")
    scale: float = at_test(100.0, gt=0)


@dataclass(frozen=True)
class Cache:
    """What is kept of a support set.

    Attributes:
        keys: [S, D] features of length 1.
        values: [S, N] one-hot labels.
        means: [N, D] class means of the keys, divided by their length.
        support_x: the support set as it was given.
    """

    keys: Tensor
    values: Tensor
    means: Tensor
    support_x: Tensor


class TipAdapter(OnViews, Head):
    """Scores a class by the similarities of a query to its support images (equation 5), beside zero-shot scores."""

    Config = TipAdapterConfig

    def adapt(self, support: Support) -> Cache:
        """Return the cache of the support set."""
        features = self.embedded_support(support).x
        averaged = features.reshape(-1, len(support.y), features.shape[1]).mean(dim=0)
        keys = F.normalize(self.transformed(averaged), dim=1)
        means = F.normalize(class_means(keys, support.y, support.way), dim=1)
        return Cache(keys, F.one_hot(support.y, support.way).to(keys.dtype), means, support.x)

    def answer(self, cache: Cache, query: Tensor) -> Tensor:
        """Return [M, N] scores (equation 6)."""
        config = self.config
        x = F.normalize(self.transformed(self.embedded_query(cache.support_x, query)), dim=1)
        cached = (config.sharpness * (x @ cache.keys.T - 1)).exp() @ cache.values
        scores: Tensor = config.residual * cached
        return scores + config.scale * (x @ cache.means.T) if config.zero_shot == "means" else scores
