"""SimpleShot (Wang, Chao, Weinberger & van der Maaten 2019, https://arxiv.org/abs/1911.04623)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from metabench.api import AlgorithmConfig, Support, at_test
from metabench.specs import OneOf, SearchRange
from metabench_plugins.algorithms.base_classes import OnBaseClasses
from metabench_plugins.algorithms.protonet import class_means, squared_distances
from metabench_plugins.algorithms.transformed import OnTransformedFeatures, Transform


class SimpleShotConfig(AlgorithmConfig):
    """Parameters of `SimpleShot`.

    Attributes:
        transform: features as they are (``"UN"``), divided by their length (``"L2N"``), or that after the mean feature
            of the training images is subtracted (``"CL2N"``; section 3.2).
    """

    # The paper compares the transforms.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "transform": OneOf(["UN", "L2N", "CL2N"]),
    }

    transform: Transform = at_test("CL2N")


class SimpleShot(OnTransformedFeatures, OnBaseClasses):
    """Trains the network as a classifier of all training classes; takes the nearest mean of transformed features."""

    Config = SimpleShotConfig
    functional = True
    draws = False

    def adapt(self, support: Support) -> Tensor:
        """Return [N, D] means of the transformed features of each class (equation 4)."""
        return class_means(self.transformed(support.x), support.y, support.way)

    def answer(self, means: Tensor, query: Tensor) -> Tensor:
        """Return [M, N] negative squared distances to the means (equation 3)."""
        return -squared_distances(self.transformed(query), means)
