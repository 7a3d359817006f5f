"""Siamese networks (Koch, Zemel & Salakhutdinov 2015).

"Siamese neural networks for one-shot image recognition", https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Episode, Setup, Support
from metabench_plugins.algorithms.per_class import log_sum_per_class


class SiameseConfig(AlgorithmConfig):
    """Parameters of `Siamese`.

    Attributes:
        units: units of the fully connected sigmoid layer whose outputs are compared.
        pairs: image pairs compared in each training episode; half of them are of one class.
        distortion: probability that a training image is distorted (section 3.2). The paper instead adds eight
            distorted copies of every image.
    """

    units: PositiveInt = 4096
    pairs: PositiveInt = Field(default=512, multiple_of=2)
    distortion: float = Field(default=8 / 9, ge=0, le=1)


class Siamese(Algorithm):
    """Learns the probability that two images are of one class.

    The probability is p = σ(Σ_j w_j |e_j(a) - e_j(b)| + c), a weighted L1 distance of embeddings e. The embeddings are
    a fully connected sigmoid layer on top of the backbone (section 3.1). A query is assigned to the class with the
    highest mean probability over its support images.
    """

    Config = SiameseConfig
    reads = "features"
    any_way = True

    def __init__(self, config: SiameseConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.dense = nn.Linear(setup.backbone.features, config.units)
        self.distance = nn.Linear(config.units, 1)

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Return [...] log-odds that embeddings share a class."""
        log_odds: Tensor = self.distance((a - b).abs())
        return log_odds.squeeze(-1)

    def embed(self, features: Tensor) -> Tensor:
        """Return [n, units] sigmoid embeddings of [n, D] features."""
        return self.dense(features).sigmoid()  # type: ignore[no-any-return]

    def augment(self, images: Tensor) -> Tensor:
        """Distort training images (section 3.2)."""
        return distort(images, self.config.distortion) if self.config.distortion else images

    def episode_loss(self, episode: Episode) -> Tensor:
        """Return the binary cross-entropy over pairs of the episode's images."""
        features = self.embed(torch.cat([episode.support.x, episode.query_x]))
        first, second = draw_pairs(torch.cat([episode.support.y, episode.query_y]), self.config.pairs)
        same = features.new_zeros(len(first))
        same[: len(first) // 2] = 1
        return F.binary_cross_entropy_with_logits(
            self.similarity(features.index_select(0, first), features.index_select(0, second)), same
        )

    def adapt(self, support: Support) -> Support:
        """Return the support set with [S, units] embeddings."""
        return replace(support, x=self.embed(support.x))

    def answer(self, support: Support, query: Tensor) -> Tensor:
        """Return [M, N] log mean probabilities for the classes."""
        log_similarity = F.logsigmoid(self.similarity(self.embed(query).unsqueeze(1), support.x.unsqueeze(0)))
        # Average over the images of a class in log space: in float32, probabilities near 1 would tie.
        shots = support.y.bincount(minlength=support.way).to(log_similarity.dtype)
        return log_sum_per_class(log_similarity, support.y, support.way) - shots.log()


def draw_pairs(labels: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Draw pairs of images: the first half share a class.

    The images of a pair of one class differ; the second half of the pairs are of two classes.

    Args:
        labels: [n] labels of at least two classes, each with at least two images.
        pairs: number of pairs, even.

    Returns:
        [pairs] indices of the first images, and [pairs] of the second.
    """
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    not_itself = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    drawn = [
        choices.flatten().float().multinomial(pairs // 2, replacement=True) for choices in (same & not_itself, ~same)
    ]
    flat = torch.cat(drawn)
    return flat // len(labels), flat % len(labels)


def distort(x: Tensor, chance: float) -> Tensor:
    """Apply random affine distortions to images (section 3.2).

    Each component is used with probability one half: rotation within ±10°, shear within ±0.3, scale within 0.8 … 1.2,
    shift within ±2 pixels of 28.

    Args:
        x: [n, C, H, W] images with a background of 0.
        chance: probability that an image is distorted at all.

    Returns:
        [n, C, H, W] images.
    """
    n = len(x)

    def component(low: float, high: float, neutral: float) -> Tensor:
        value = torch.empty(n, device=x.device).uniform_(low, high)
        used = torch.rand(n, device=x.device) < 0.5
        return torch.where(used, value, torch.full_like(value, neutral))

    angle = component(-math.radians(10), math.radians(10), 0.0)
    shear_x, shear_y = component(-0.3, 0.3, 0.0), component(-0.3, 0.3, 0.0)
    scale_x, scale_y = component(0.8, 1.2, 1.0), component(0.8, 1.2, 1.0)
    # Coordinates run from -1 to 1, so 2 pixels of 28 are 4/28.
    shift_x, shift_y = component(-4 / 28, 4 / 28, 0.0), component(-4 / 28, 4 / 28, 0.0)
    cos, sin = angle.cos(), angle.sin()
    rows = [
        torch.stack([cos / scale_x, (shear_x - sin) / scale_x, shift_x], dim=-1),
        torch.stack([(shear_y + sin) / scale_y, cos / scale_y, shift_y], dim=-1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(x.dtype), list(x.shape), align_corners=False)
    distorted = F.grid_sample(x, grid, align_corners=False)
    return torch.where((torch.rand(n, device=x.device) < chance).reshape(-1, 1, 1, 1), distorted, x)
