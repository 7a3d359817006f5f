"""Tiny algorithms with parameters to search. None of them may see a test image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from metabench import api
from metabench.specs import AlgorithmSpec, Float, Integer, OneOf, SearchRange, hookimpl
from tiny import Centroid, is_test


class DialConfig(api.Config):
    """Parameters of `Dial`.

    Attributes:
        rate: 1 is best; from 30 on, training diverges.
        unused: changes nothing.
    """

    search_space: ClassVar[Mapping[str, SearchRange]] = {
        "rate": Float(0.02, 50, log=True),
        "unused": OneOf(["a", "b"]),
    }

    rate: float = 0.01
    unused: str = "a"


class Dial(Centroid):
    """Is right on a part of the queries that depends on its rate."""

    Config = DialConfig

    def loss(self, step: int) -> Tensor:
        return torch.tensor(math.nan) if self.config.rate >= 30 else super().loss(step)

    def answer(self, state: Any, query: Tensor) -> Tensor:
        assert not is_test(query), "it has seen a test image"
        scores = super().answer(state, query)
        right = round(len(query) * max(0.0, 1 - abs(math.log10(self.config.rate)) / 2))
        signs = torch.ones(len(query), 1)
        signs[right:] = -1
        return scores * signs


class Still(Centroid):
    """Has no parameters."""

    Config = api.Config


class StepsConfig(api.Config):
    """Parameters of `Steps`.

    Attributes:
        steps: number of steps at test, of which 3 are best.
    """

    search_space: ClassVar[Mapping[str, SearchRange]] = {"steps": Integer(1, 3)}

    steps: int = api.at_test(1, ge=1)


class Steps(Centroid):
    """Trains nothing, and is right on as many thirds of the queries as it makes steps."""

    Config = StepsConfig
    trains_on = "nothing"

    def answer(self, state: Any, query: Tensor) -> Tensor:
        signs = torch.ones(len(query), 1)
        signs[len(query) * self.config.steps // 3 :] = -1
        return super().answer(state, query) * signs


class Plugin:
    """Announces the algorithms."""

    @hookimpl
    def metabench_algorithms(self) -> list[AlgorithmSpec]:
        return [AlgorithmSpec(cls.__name__.lower(), f"{__name__}:{cls.__name__}", "") for cls in (Dial, Still, Steps)]


PLUGIN = Plugin()
