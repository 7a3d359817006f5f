"""PT-MAP (Hu, Gripon & Pateux 2020, "Leveraging the feature distribution", https://arxiv.org/abs/2006.03806)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Support, at_test
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.protonet import squared_distances, squared_lengths
from metabench_plugins.heads.head import Head, HeadConfig


class PTMAPConfig(HeadConfig):
    """Parameters of `PTMAP`, by default those of the authors' code; easyfsl makes 10 rounds, and does not centre.

    Attributes:
        power: exponent β of the features (equation 1).
        centred: whether their means are subtracted from support set and queries, each from its own.
        steps: number of rounds, in which the means move.
        rate: the part α of the way to the new means that they move in a round.
        sharpness: λ, the factor of the distances in the transport.
        transport_steps: Sinkhorn's iterations in a round, which begin where those of the last round ended. The
            authors' begin anew, and end where a sum moves by less than 1e-6.
    """

    # Around the authors' β, α and λ.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **HeadConfig.search_space,
        "power": Float(0.1, 1),
        "rate": Float(0.05, 0.6),
        "sharpness": Float(1, 30, log=True),
    }

    power: float = at_test(0.5, gt=0)
    centred: bool = at_test(True)
    steps: int = at_test(20, ge=0)
    rate: float = at_test(0.2, gt=0, le=1)
    sharpness: float = at_test(10.0, gt=0)
    transport_steps: int = at_test(20, ge=1)


class PTMAP(Head):
    """Assigns queries to means by optimal transport, in equal numbers, and moves the means to their queries.

    Transductive. Features are divided by their length after the power, as in the paper; easyfsl does so if it divides
    by the sum before. Fewer queries than classes cannot be assigned in equal numbers: they get the softmax of their
    distances, and the centre of the support set.
    """

    Config = PTMAPConfig

    def adapt(self, support: Support) -> tuple[Tensor, Tensor]:
        """Return [S, D] transformed features of the support set, and their [N, S] one-hot labels."""
        x = self._powers(support.x)
        return x, F.one_hot(support.y, support.way).T.to(x.dtype)

    def answer(self, state: tuple[Tensor, Tensor], query: Tensor) -> Tensor:
        """Return the [M, N] log-probabilities of the assignment (algorithm 1)."""
        support, labels = state
        query = self._powers(query)
        if self.config.centred:
            alone = len(query) < len(labels)
            support, query = (centred(x, support if alone else x) for x in (support, query))
        x, squares = torch.cat([support, query]), squared_lengths(query)
        means = labels @ support / labels.sum(dim=1, keepdim=True)
        assigned, prices = self._assigned(query, squares, means, means.new_zeros(len(means)))
        for _ in range(self.config.steps):
            shares = torch.cat([labels, assigned.exp()], dim=1)
            means = means.lerp(shares @ x / shares.sum(dim=1, keepdim=True), self.config.rate)  # equation 6
            assigned, prices = self._assigned(query, squares, means, prices)
        return assigned.T

    def _powers(self, x: Tensor) -> Tensor:
        """Return features after the power transform (equation 1); negative ones count as zero."""
        return F.normalize((self.transformed(x).relu() + 1e-6).pow(self.config.power), dim=1)

    def _assigned(self, query: Tensor, squares: Tensor, means: Tensor, prices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithms of the transport of queries to [N, D] means, and what `balanced` adds.

        Args:
            query: [M, D] queries.
            squares: [M] squared lengths of them.
            means: [N, D] means.
            prices: [N] numbers that `balanced` begins with.
        """
        nearness = -self.config.sharpness * squared_distances(means, query, squares)
        return balanced(nearness, prices, self.config.transport_steps)


def centred(x: Tensor, others: Tensor) -> Tensor:
    """Return [n, D] features without the mean of others, divided by their length."""
    return F.normalize(x - others.mean(dim=0), dim=1)


def balanced(scores: Tensor, prices: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the [N, M] log-probabilities of scores plus a number of each class, so that all classes are as frequent.

    Sinkhorn's iterations (Cuturi 2013, https://arxiv.org/abs/1306.0895): the probabilities of a query sum to 1, and
    those of a class to M / N.

    Args:
        scores: [N, M] scores.
        prices: [N] numbers to begin with.
        steps: number of iterations.

    Returns:
        The log-probabilities, and the [N] numbers.
    """
    way, queries = scores.shape
    if queries < way:
        return scores.log_softmax(dim=0), prices
    kernel, of_class = scores.log_softmax(dim=0).exp(), prices.exp()
    for _ in range(steps):
        of_query = 1 / (of_class @ kernel)
        of_class = queries / way / (kernel @ of_query)
    prices = of_class.log()
    return (scores + prices.unsqueeze(1)).log_softmax(dim=0), prices
