"""A multilayer perceptron for vectors."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from metabench.api import Backbone, Config


class MLPConfig(Config):
    """Parameters of `MLP`.

    Attributes:
        hidden: widths of the hidden layers; the last one is the number of features.
        std: standard deviation of the initial weights; None takes that of He et al. 2015. Plain gradient descent on few
            points may diverge from the latter: try 0.1.
    """

    hidden: list[PositiveInt] = Field(default=[40, 40], min_length=1)
    std: PositiveFloat | None = None


class MLP(Backbone):
    """Fully connected layers with ReLU; the features are those of the last hidden layer.

    With two layers of 40, it is the network that Finn et al. 2017 (section 5.1) fit sinusoids with. Images are
    flattened. Biases begin at 0.
    """

    Config = MLPConfig
    per_image = True
    takes_vectors: ClassVar[bool] = True

    def __init__(self, config: MLPConfig, image_shape: tuple[int, ...]) -> None:
        super().__init__(config, image_shape)
        layers = [nn.Linear(given, wanted) for given, wanted in pairwise([math.prod(image_shape), *config.hidden])]
        for layer in layers:
            if config.std is None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, std=config.std)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)
        self.features = config.hidden[-1]

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        x = x.flatten(1)
        for layer in self.layers:
            x = layer(x).relu()
        return x
