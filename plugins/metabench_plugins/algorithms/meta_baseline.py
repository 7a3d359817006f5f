"""Meta-Baseline (Chen, Liu, Xu, Darrell & Wang 2021, https://arxiv.org/abs/2003.04390).

Its code is https://github.com/yinboc/few-shot-meta-baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Setup, Support
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.protonet import class_means


class MetaBaselineConfig(AlgorithmConfig):
    """Parameters of `MetaBaseline`, by default those of the authors' code for its second stage.

    Attributes:
        scale: factor of the cosine before training, which changes it.
        optimiser: Adam, AdamW or SGD.
        lr: learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
    """

    # Around the authors' rate, scale and decay.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "scale": Float(1, 100, log=True),
        "weight_decay": Float(1e-5, 5e-3, log=True),
    }

    scale: PositiveFloat = 10.0
    optimiser: Literal["adam", "adamw", "sgd"] = "sgd"
    lr: PositiveFloat = 1e-3
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 5e-4


class MetaBaseline(Algorithm):
    """Classifies by the scaled cosine to the mean feature of each class.

    The first stage is another training: `classifier`, whose weights this one starts from (``init: classifier``). Tested
    on these weights without a training of its own (``weights: classifier``), it is the paper's Classifier-Baseline.
    """

    Config = MetaBaselineConfig
    reads = "features"
    functional = True
    any_way = True
    draws = False

    def __init__(self, config: MetaBaselineConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.scale = nn.Parameter(torch.tensor(config.scale))

    def adapt(self, support: Support) -> Tensor:
        """Return [N, D] mean features of the classes, of length 1."""
        return F.normalize(class_means(support.x, support.y, support.way), dim=1)

    def answer(self, means: Tensor, query: Tensor) -> Tensor:
        """Return the [M, N] scaled cosines of [M, D] features and the means."""
        return self.scale * (F.normalize(query, dim=1) @ means.T)
