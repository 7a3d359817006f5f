"""A policy that is conditioned on a demonstration: the metric-learning counterpart of adapted weights.

A conditional neural process (Garnelo et al. 2018, https://arxiv.org/abs/1807.01613): the mean embedding of the support
points conditions the answer, as one-shot imitation (Duan et al. 2017, https://arxiv.org/abs/1703.07326) and
task-embedded control (James et al. 2018, https://arxiv.org/abs/1810.03237) condition a policy on demonstrations.
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from metabench.api import Algorithm, AlgorithmConfig, Setup, Support


class ConditionedConfig(AlgorithmConfig):
    """Parameters of `Conditioned`.

    Attributes:
        embedding: length of the embedding of a demonstration.
        hidden: units of the hidden layers of embedding and policy.
    """

    embedding: PositiveInt = 64
    hidden: PositiveInt = 100


class Conditioned(Algorithm):
    """Embed each support point, input and target, by one network; answer queries by another, given the mean embedding.

    Nothing is adapted but the mean. The backbone embeds the inputs of both.
    """

    Config = ConditionedConfig
    tasks = ("regression",)
    reads = "features"
    functional = True

    def __init__(self, config: ConditionedConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        features, outputs = setup.backbone.features, setup.outputs
        self.embed = _two_layers(features + outputs, config.hidden, config.embedding)
        self.act = _two_layers(features + config.embedding, config.hidden, outputs)

    def adapt(self, support: Support) -> Tensor:
        """Return the [embedding] mean embedding of the support points."""
        embedded: Tensor = self.embed(torch.cat([support.x, support.y], dim=1))
        return embedded.mean(dim=0)

    def answer(self, state: Tensor, query: Tensor) -> Tensor:
        """Return the [M, outputs] answers to [M, D] features."""
        answers: Tensor = self.act(torch.cat([query, state.expand(len(query), -1)], dim=1))
        return answers


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
