"""Relation network (Sung et al. 2018, "Learning to compare", https://arxiv.org/abs/1711.06025).

Its code is https://github.com/floodsung/LearningToCompare_FSL.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Episode, Setup, Support, Unfit


class RelationNetConfig(AlgorithmConfig):
    """Parameters of `RelationNet`, by default those of the authors' code.

    Attributes:
        channels: filters of both convolutions of the relation module.
        hidden: units of its hidden layer.
        padding: padding of its convolutions: 1 on Omniglot, 0 on miniImageNet.
        schedule: the learning rate falls in steps.
        decay_every: outer updates after which it is halved.
        clip: largest norm of the gradient; the authors clip network and relation module each on its own.
    """

    channels: PositiveInt = 64
    hidden: PositiveInt = 8
    padding: int = Field(default=1, ge=0, le=1)
    schedule: Literal["constant", "step", "cosine"] = "step"
    decay_every: PositiveInt | None = 100_000
    clip: PositiveFloat | None = 0.5


class RelationNet(Algorithm):
    """Learns to compare: a small network tells the relation, in 0 … 1, of a query and a class.

    It reads feature maps, and takes features that are no maps (`Backbone.map_shape`) for maps of one pixel; the
    authors' network keeps maps of 5×5 or 19×19 (`conv4` with pooling in two blocks). A query's score for a class is the
    logarithm of their relation. Batch norm of the relation module tests with running averages; in the authors' code,
    the other queries of the batch count.
    """

    Config = RelationNetConfig
    reads = "features"
    functional = True
    any_way = True

    def __init__(self, config: RelationNetConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.map_shape = setup.backbone.map_shape or (setup.backbone.features, 1, 1)
        self.relation = RelationModule(self.map_shape, config)

    def adapt(self, support: Support) -> Tensor:
        """Return [N, C, h, w] sums of the maps of each class (section 3.2)."""
        members = F.one_hot(support.y, support.way).to(support.x.dtype)
        return self._maps(members.T @ support.x)

    def answer(self, classes: Tensor, query: Tensor) -> Tensor:
        """Return the [M, N] logarithms of the relations of [M, D] features to the classes."""
        return F.logsigmoid(self._log_odds(classes, query))

    def episode_loss(self, episode: Episode) -> Tensor:
        """Return the mean squared error of the relations, which are to be 1 or 0 (equation 2)."""
        relations = self._log_odds(self.adapt(episode.support), episode.query_x).sigmoid()
        return F.mse_loss(relations, F.one_hot(episode.query_y, episode.support.way).to(relations.dtype))

    def _log_odds(self, classes: Tensor, query: Tensor) -> Tensor:
        log_odds: Tensor = self.relation(classes, self._maps(query))
        return log_odds

    def _maps(self, features: Tensor) -> Tensor:
        return features.view(len(features), *self.map_shape)


class RelationModule(nn.Module):
    """Two blocks of convolution, batch norm, ReLU and max-pooling, and two linear layers (section 3.4).

    Maps of one pixel are not pooled.

    Args:
        map_shape: (C, h, w) of the maps of classes and queries.
        config: parameters of the module.

    Raises:
        Unfit: the maps are too small for convolutions without padding.
    """

    def __init__(self, map_shape: tuple[int, int, int], config: RelationNetConfig) -> None:
        super().__init__()
        channels, *sides = map_shape
        # The convolution of a class's and a query's maps, concatenated, is the sum of two; each is computed once, not
        # for each pair: .8 of the time of a training step on images of 28 pixels.
        self.of_class = nn.Conv2d(channels, config.channels, 3, padding=config.padding)
        self.of_query = nn.Conv2d(channels, config.channels, 3, padding=config.padding, bias=False)
        self.first_norm = nn.BatchNorm2d(config.channels)
        self.second = nn.Conv2d(config.channels, config.channels, 3, padding=config.padding)
        self.second_norm = nn.BatchNorm2d(config.channels)
        for _ in range(2):
            sides = [side + 2 * config.padding - 2 for side in sides]
            if min(sides) < 1:
                raise Unfit(f"maps of {map_shape[1:]} are too small for two convolutions without padding")
            sides = [side // 2 if min(sides) > 1 else side for side in sides]
        self.hidden = nn.Linear(config.channels * math.prod(sides), config.hidden)
        self.output = nn.Linear(config.hidden, 1)
        self.apply(_initialise)

    def forward(self, classes: Tensor, queries: Tensor) -> Tensor:
        """Return the [M, N] log-odds of the relations of [M, C, h, w] queries and [N, C, h, w] classes."""
        pairs = self.of_query(queries).unsqueeze(1) + self.of_class(classes).unsqueeze(0)
        x = pooled(self.first_norm(pairs.flatten(0, 1)).relu())
        x = pooled(self.second_norm(self.second(x)).relu())
        log_odds: Tensor = self.output(self.hidden(x.flatten(1)).relu())
        return log_odds.view(len(queries), len(classes))


def pooled(x: Tensor) -> Tensor:
    """Return [n, C, h, w] maps halved by max-pooling; maps that are one pixel high or wide as they are."""
    return F.max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x


def _initialise(layer: nn.Module) -> None:
    """Draw the weights of a layer as the authors do."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.ones_(layer.bias)
