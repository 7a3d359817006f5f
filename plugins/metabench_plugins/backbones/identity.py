"""The numbers of an image or a vector as its features."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from metabench.api import Backbone, Config


class Identity(Backbone):
    """Return images or vectors flattened, as they are: a floor for other backbones, and for features made elsewhere."""

    frozen = True
    per_image = True
    takes_vectors: ClassVar[bool] = True

    def __init__(self, config: Config, image_shape: tuple[int, ...]) -> None:
        super().__init__(config, image_shape)
        self.features = math.prod(image_shape)

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        return x.flatten(1)
