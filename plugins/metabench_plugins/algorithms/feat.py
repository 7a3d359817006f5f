"""FEAT, few-shot embedding adaptation with a transformer (Ye, Hu, Zhan & Sha 2020, https://arxiv.org/abs/1812.03664).

Its code is https://github.com/Sha-Lab/FEAT.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Episode, Setup, Support
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.protonet import class_means, squared_distances

#: The authors' learning rate of the transformer, in units of the network's.
_TRANSFORMER_LR = 10.0


class FEATConfig(AlgorithmConfig):
    """Parameters of `FEAT`, by default those of the authors' code for 5-way 1-shot on miniImageNet with a ResNet-12.

    Attributes:
        temperature: divisor of the squared distances.
        contrast: weight of the contrastive loss; the authors take 0.1 for 5-shot.
        contrast_temperature: divisor of the squared distances in the contrastive loss; the authors take 32 for 5-shot.
        dropout: share of the transformer's outputs that training drops.
        attention_dropout: share of the attention weights that training drops.
        optimiser: Adam, AdamW or SGD; the authors take Adam for Conv4, with half the learning rate.
        lr: learning rate of the network; that of the transformer is ten times as large.
        momentum: momentum of SGD.
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: L2 penalty.
        schedule: the learning rate falls in steps.
        decay_every: outer updates after which it is halved (40 epochs of 100 episodes).
    """

    # Around the authors' values for 1-shot and 5-shot, on Conv4 and ResNet-12.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "lr": Float(2e-5, 2e-3, log=True),
        "temperature": Float(1, 128, log=True),
        "contrast": Float(1e-3, 1, log=True),
        "contrast_temperature": Float(1, 128, log=True),
        "weight_decay": Float(1e-5, 5e-3, log=True),
    }

    temperature: PositiveFloat = 64.0
    contrast: NonNegativeFloat = 0.01
    contrast_temperature: PositiveFloat = 64.0
    dropout: float = Field(default=0.5, ge=0, lt=1)
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    optimiser: Literal["adam", "adamw", "sgd"] = "sgd"
    lr: PositiveFloat = 2e-4
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 5e-4
    schedule: Literal["constant", "step", "cosine"] = "step"
    decay_every: PositiveInt | None = 4000


class FEAT(Algorithm):
    """A prototypical network whose prototypes see one another.

    A transformer of one head adapts the prototypes of an episode to the set that they are in. In training, it also
    adapts all images of each class as a set, whose mean is to be near the images (contrastive loss). The paper starts
    from the weights of a classifier of all training classes (``init: classifier``).
    """

    Config = FEATConfig
    reads = "features"
    functional = True
    any_way = True

    def __init__(self, config: FEATConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.transformer = SetTransformer(setup.backbone.features, config.dropout, config.attention_dropout)

    def lr_multiplier(self, name: str) -> float:
        """Return the factor of the learning rate: more for the transformer than for the network."""
        return _TRANSFORMER_LR if name.startswith("transformer.") else 1.0

    def adapt(self, support: Support) -> Tensor:
        """Return [N, D] adapted prototypes."""
        prototypes: Tensor = self.transformer(class_means(support.x, support.y, support.way))
        return prototypes

    def answer(self, prototypes: Tensor, query: Tensor) -> Tensor:
        """Return the [M, N] negative squared distances of [M, D] features to the prototypes, by the temperature."""
        scores: Tensor = -squared_distances(query, prototypes) / self.config.temperature
        return scores

    def episode_loss(self, episode: Episode) -> Tensor:
        """Return the cross-entropy of the queries, and that of all images to the centres of their adapted classes.

        All classes of the episode have equally many images.
        """
        loss = super().episode_loss(episode)
        if not self.config.contrast:
            return loss
        way = episode.support.way
        images, labels = (
            torch.cat([episode.support.x, episode.query_x]),
            torch.cat([episode.support.y, episode.query_y]),
        )
        of_class = images[labels.argsort()].view(way, len(labels) // way, -1)
        distances = squared_distances(images, self.transformer(of_class).mean(dim=1))
        contrast = F.cross_entropy(-distances / self.config.contrast_temperature, labels)
        total: Tensor = loss + self.config.contrast * contrast
        return total


class SetTransformer(nn.Module):
    """Self-attention of one head over a set, a linear layer, and layer norm of their sum with the input.

    Args:
        features: length D of the members of a set.
        dropout: share of the outputs that is dropped.
        attention_dropout: share of the attention weights that is dropped.
    """

    def __init__(self, features: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(features, features, bias=False) for _ in range(3))
        for layer in (self.queries, self.keys, self.values):
            nn.init.normal_(layer.weight, std=math.sqrt(1 / features))
        self.output = nn.Linear(features, features)
        nn.init.xavier_normal_(self.output.weight)
        self.norm = nn.LayerNorm(features)
        self.dropout, self.attention_dropout = nn.Dropout(dropout), nn.Dropout(attention_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted members of sets [..., n, D]."""
        similarities = self.queries(x) @ self.keys(x).mT / math.sqrt(x.shape[-1])
        attended = self.attention_dropout(similarities.softmax(dim=-1)) @ self.values(x)
        adapted: Tensor = self.norm(self.dropout(self.output(attended)) + x)
        return adapted
