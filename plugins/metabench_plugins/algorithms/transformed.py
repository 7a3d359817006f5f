"""Features as SimpleShot transforms them (Wang et al. 2019, section 3.2; https://arxiv.org/abs/1911.04623)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Algorithm, Images, Setup

#: Features as they are (``"UN"``), divided by their length (``"L2N"``), or that after the mean feature of the training
#: images is subtracted (``"CL2N"``).
Transform = Literal["UN", "L2N", "CL2N"]


class OnTransformedFeatures(Algorithm):
    """An algorithm that classifies features as its parameter `transform` changes them.

    It is validated without centring: the mean feature belongs to the weights that are tested.
    """

    reads: Literal["images", "features"] = "features"

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.register_buffer("mean", torch.zeros(setup.backbone.features))

    def prepare(self, train: Iterable[Images]) -> None:
        """Set the mean feature of the training images, which are embedded for ``"CL2N"`` only."""
        if self.config.transform != "CL2N":
            return
        total, count = torch.zeros_like(self.get_buffer("mean"), dtype=torch.float64), 0
        for images in train:
            total += images.x.sum(dim=0, dtype=torch.float64)
            count += len(images)
        self.get_buffer("mean").copy_(total / count)

    def transformed(self, x: Tensor) -> Tensor:
        """Return the transformed [n, D] features."""
        transform: Transform = self.config.transform
        if transform == "UN":
            return x
        return F.normalize(x - self.get_buffer("mean") if transform == "CL2N" else x, dim=1)
