"""SimpleShot (Wang, Chao, Weinberger & van der Maaten 2019, https://arxiv.org/abs/1911.04623)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import AlgorithmConfig, Images, Setup, Support, at_test
from metabench_plugins.algorithms.base_classes import OnBaseClasses
from metabench_plugins.algorithms.protonet import class_means, squared_distances


class SimpleShotConfig(AlgorithmConfig):
    """Parameters of `SimpleShot`.

    Attributes:
        transform: features as they are (``"UN"``), divided by their length (``"L2N"``), or that after the mean feature
            of the training images is subtracted (``"CL2N"``; section 3.2).
    """

    transform: Literal["UN", "L2N", "CL2N"] = at_test("CL2N")


class SimpleShot(OnBaseClasses):
    """Trains the network as a classifier of all training classes; then the nearest class mean of transformed features.

    It is validated without centring: the mean feature belongs to the weights that are tested.
    """

    Config = SimpleShotConfig
    functional = True
    draws = False

    def __init__(self, config: SimpleShotConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.register_buffer("mean", torch.zeros(setup.backbone.features))

    def prepare(self, train: Iterable[Images]) -> None:
        """Set the mean feature of the training images."""
        total, count = torch.zeros_like(self.get_buffer("mean"), dtype=torch.float64), 0
        for images in train:
            total += images.x.sum(dim=0, dtype=torch.float64)
            count += len(images)
        self.get_buffer("mean").copy_(total / count)

    def adapt(self, support: Support) -> Tensor:
        """Return [N, D] means of the transformed features of each class (equation 4)."""
        return class_means(self._transformed(support.x), support.y, support.way)

    def answer(self, means: Tensor, query: Tensor) -> Tensor:
        """Return [M, N] negative squared distances to the means (equation 3)."""
        return -squared_distances(self._transformed(query), means)

    def _transformed(self, x: Tensor) -> Tensor:
        transform: Any = self.config.transform
        if transform == "UN":
            return x
        return F.normalize(x - self.get_buffer("mean") if transform == "CL2N" else x, dim=1)
