"""Gaussian policies: a multilayer perceptron with weights of each task, and a recurrent one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from metabench_rl.api import Act, Seen

#: Names of weights to weights, each with a first dimension of B tasks.
Weights = Mapping[str, Tensor]
#: Least logarithm of a standard deviation.
_LEAST_LOG_STD = math.log(0.01)


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return the log-density of actions [..., A] under a diagonal Gaussian, without the last dimension."""
    scaled = (action - mean) * torch.exp(-log_std)
    return -(0.5 * scaled.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(dim=-1)


class Perceptron(nn.Module):
    """Two hidden layers that give the mean; the standard deviation is a parameter of its own.

    Args:
        observation: O, numbers of an observation.
        action: A, numbers of an action.
        hidden: units of each hidden layer.
        init_std: first standard deviation.
        tanh: whether the hidden layers are tanh, instead of ReLU.
    """

    def __init__(self, observation: int, action: int, hidden: int, init_std: float = 1.0, tanh: bool = False) -> None:
        super().__init__()
        sizes = [observation, hidden, hidden, action]
        self.tanh = tanh
        self.matrices = nn.ParameterList(
            nn.init.xavier_uniform_(torch.empty(into, out)) for into, out in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(out) for out in sizes[1:])
        self.log_std = nn.Parameter(torch.full((action,), math.log(init_std)))

    def weights(self, tasks: int) -> dict[str, Tensor]:
        """Return the weights, repeated for each of B tasks, through which gradients reach the parameters."""
        return {name: weight.expand(tasks, *weight.shape) for name, weight in self.named_parameters()}

    def distribution(self, weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the [B, N, A] means and the [B, 1, A] log standard deviations at [B, N, O] observations."""
        layers = len(self.matrices)
        for layer in range(layers):
            x = torch.baddbmm(weights[f"biases.{layer}"].unsqueeze(1), x, weights[f"matrices.{layer}"])
            if layer < layers - 1:
                x = torch.tanh(x) if self.tanh else torch.relu(x)
        return x, weights["log_std"].unsqueeze(1).clamp(min=_LEAST_LOG_STD)


@dataclass(frozen=True)
class WeightedPolicy:
    """A perceptron with weights of each task.

    Attributes:
        network: the perceptron.
        weights: its weights, of B tasks.
    """

    network: Perceptron
    weights: Weights
    memory: None = None

    def act(self, seen: Seen, memory: None) -> Act:
        """See `metabench_rl.api.Policy`."""
        return Act(*self.network.distribution(self.weights, seen.observation))

    def log_probs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return the [B, T, H] log-probabilities of actions at [B, T, H, O] observations."""
        mean, log_std = self.network.distribution(self.weights, observations.flatten(1, 2))
        return log_prob(actions.flatten(1, 2), mean, log_std).view(actions.shape[:3])


class Recurrent(nn.Module):
    """A GRU that gives the mean, from observation, last action, last reward and whether an episode begins.

    Args:
        observation: O, numbers of an observation.
        action: A, numbers of an action.
        hidden: units of the GRU.
        init_std: first standard deviation.
    """

    def __init__(self, observation: int, action: int, hidden: int, init_std: float = 1.0) -> None:
        super().__init__()
        self.gru = nn.GRU(observation + action + 2, hidden, batch_first=True)
        self.head = nn.Linear(hidden, action)
        nn.init.zeros_(self.head.bias)
        nn.init.xavier_uniform_(self.head.weight, gain=0.1)
        self.log_std = nn.Parameter(torch.full((action,), math.log(init_std)))

    def forward(self, x: Tensor, memory: Tensor) -> Act:
        """Return the distributions along [N, H, O + A + 2] inputs, from a [N, hidden] memory."""
        features, last = self.gru(x, memory.unsqueeze(0))
        return Act(self.head(features), self.log_std.clamp(min=_LEAST_LOG_STD), last.squeeze(0))


@dataclass(frozen=True)
class RecurrentPolicy:
    """A GRU whose memory of each task is what it has learnt.

    Attributes:
        network: the GRU.
        memory: [B, 1, hidden] memory at the first step.
    """

    network: Recurrent
    memory: Tensor

    def act(self, seen: Seen, memory: Tensor) -> Act:
        """See `metabench_rl.api.Policy`."""
        tasks, trajectories = seen.reward.shape
        first = torch.full_like(seen.reward, float(seen.first)).unsqueeze(-1)
        x = torch.cat([seen.observation, seen.action, seen.reward.unsqueeze(-1), first], dim=-1)
        memory = memory.expand(tasks, trajectories, -1).flatten(0, 1)
        mean, log_std, memory = self.network(x.flatten(0, 1).unsqueeze(1), memory)
        return Act(mean.view(tasks, trajectories, -1), log_std, memory.view(tasks, trajectories, -1))
