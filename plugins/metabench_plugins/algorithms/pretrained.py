"""One network for all tasks, fine-tuned on each: the baseline of Finn, Abbeel & Levine 2017, section 5.1."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from metabench.api import AlgorithmConfig, Episode, Support, Weights, at_test, trained_weights
from metabench.specs import Float, Integer, SearchRange
from metabench_plugins.algorithms.descent import descended
from metabench_plugins.algorithms.linear_head import LinearHead


class PretrainedConfig(AlgorithmConfig):
    """Parameters of `Pretrained`.

    Attributes:
        test_inner_lr: step size of the fine-tuning.
        test_inner_steps: gradient steps on the support set at test; 0 tests the weights as they were trained.
    """

    # MAML's baseline is fine-tuned with a rate that is chosen (section 5.1).
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "test_inner_lr": Float(1e-3, 0.1, log=True),
        "test_inner_steps": Integer(1, 20),
    }

    test_inner_lr: float = at_test(0.01, gt=0)
    test_inner_steps: int = at_test(10, ge=0)


class Pretrained(LinearHead):
    """Train one network on the points of all tasks, as if they were one; at test, fine-tune it on the support set.

    Without training (``train: none``), it is a network of random weights that learns from the support set alone.
    Classification is left out: a label means another class in each episode.
    """

    Config = PretrainedConfig
    tasks = ("regression",)
    functional = True
    inner_loop = True

    def episode_loss(self, episode: Episode) -> Tensor:
        """Return the loss on all points of the episode, support and query."""
        x, y = torch.cat([episode.support.x, episode.query_x]), torch.cat([episode.support.y, episode.query_y])
        return episode.task.loss(self(x), y)

    def adapt(self, support: Support) -> tuple[Weights, Tensor]:
        """Return the weights after gradient steps on the support set, and its inputs."""
        steps, rate = self.config.test_inner_steps, self.config.test_inner_lr
        return descended(partial(self.loss_on, support), trained_weights(self), steps, rate), support.x

    def answer(self, state: tuple[Weights, Tensor], query: Tensor) -> Tensor:
        """Return the [M, outputs] answers of the adapted weights."""
        weights, support_x = state
        return self.under(weights, query, support_x)
