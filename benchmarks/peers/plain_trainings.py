"""Plain training loops around other libraries' learners, as in their examples."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping

import learn2learn as l2l
import torch
from contestants import INNER_RATE, OUTER_RATE, TEST_INNER_STEPS
from easyfsl.methods import PrototypicalNetworks
from network import Classifier, Conv4
from prepared import Task
from torch import Tensor, nn
from torch.nn import functional as F

#: Channels of conv4 in `trainings.yaml`.
CHANNELS = 32


class PlainTraining(abc.ABC):
    """A learner, its network and its outer optimiser.

    Args:
        weights: the initial weights, with the names of `network`.
        dtype: type of weights and images.
    """

    def __init__(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.network = self.new_network()
        self.network.load_state_dict(dict(weights))
        self.network.to(dtype)
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=OUTER_RATE)

    @abc.abstractmethod
    def new_network(self) -> nn.Module:
        """Return a network with any weights."""

    @abc.abstractmethod
    def loss(self, task: Task) -> Tensor:
        """Return the query loss of a training episode."""

    @abc.abstractmethod
    def scores(self, task: Task) -> Tensor:
        """Return the [M, N] query scores of a test episode."""

    def step(self, batch: list[Task]) -> float:
        """Make one outer update; return the mean loss before it."""
        self.network.train()
        self._optimiser.zero_grad()
        losses = []
        for task in batch:
            loss = self.loss(task) / len(batch)
            loss.backward()
            losses.append(float(loss.detach()))
        self._optimiser.step()
        return sum(losses)


class EasyfslProtoNet(PlainTraining):
    """easyfsl's prototypical networks.

    easyfsl would embed support and query images apart, so that batch norm has other statistics in training, and its
    distances are not squared. Here one pass embeds both, and the distances are squared, as in Snell et al. 2017.
    """

    def __init__(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__(weights, dtype)
        self._classifier = PrototypicalNetworks(nn.Identity())

    def new_network(self) -> nn.Module:
        """Return conv4 with running averages."""
        return Conv4(running=True, strides=True, channels=CHANNELS)

    def loss(self, task: Task) -> Tensor:
        """Return the cross-entropy of the queries."""
        return F.cross_entropy(self._scores(task), task[3])

    def scores(self, task: Task) -> Tensor:
        """Return [M, N] negative squared distances."""
        self.network.eval()
        with torch.no_grad():
            return self._scores(task)

    def _scores(self, task: Task) -> Tensor:
        support_x, support_y, query_x, _ = task
        support, query = self.network(torch.cat([support_x, query_x])).split([len(support_x), len(query_x)])
        self._classifier.process_support_set(support, support_y)
        return -self._classifier(query).square()


class Learn2learnMAML(PlainTraining):
    """learn2learn's MAML, second order."""

    def __init__(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__(weights, dtype)
        self._maml = l2l.algorithms.MAML(self.network, lr=INNER_RATE, first_order=False)

    def new_network(self) -> nn.Module:
        """Return conv4 with batch statistics and a linear layer."""
        return Classifier(strides=True, channels=CHANNELS)

    def loss(self, task: Task) -> Tensor:
        """Return the cross-entropy of the queries after one inner step."""
        support_x, support_y, query_x, query_y = task
        learner = self._maml.clone()
        learner.adapt(F.cross_entropy(learner(support_x), support_y))
        return F.cross_entropy(learner(query_x), query_y)

    def scores(self, task: Task) -> Tensor:
        """Return the [M, N] scores after the inner steps of a test."""
        support_x, support_y, query_x, _ = task
        learner = self._maml.clone(first_order=True)
        for _ in range(TEST_INNER_STEPS):
            learner.adapt(F.cross_entropy(learner(support_x), support_y))
        with torch.no_grad():
            return learner(query_x)


#: By label in `trainings.yaml`.
PLAIN: dict[str, Callable[[Mapping[str, Tensor], torch.dtype], PlainTraining]] = {
    "protonet": EasyfslProtoNet,
    "maml": Learn2learnMAML,
}
