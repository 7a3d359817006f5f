"""A multilayer perceptron for vectors."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from metabench.api import Backbone, Config


class MLPConfig(Config):
    """Parameters of `MLP`.

    Attributes:
        hidden: widths of the hidden layers; the last one is the number of features.
    """

    hidden: list[PositiveInt] = Field(default=[40, 40], min_length=1)


class MLP(Backbone):
    """Fully connected layers with ReLU; the features are those of the last hidden layer.

    With two layers of 40, it is the network that Finn et al. 2017 (section 5.1) fit sinusoids with. Images are
    flattened. Weights are drawn as by He et al. 2015, biases are 0.
    """

    Config = MLPConfig
    per_image = True
    takes_vectors: ClassVar[bool] = True

    def __init__(self, config: MLPConfig, image_shape: tuple[int, ...]) -> None:
        super().__init__(config, image_shape)
        layers = [nn.Linear(given, wanted) for given, wanted in pairwise([math.prod(image_shape), *config.hidden])]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)
        self.features = config.hidden[-1]

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        x = x.flatten(1)
        for layer in self.layers:
            x = layer(x).relu()
        return x
