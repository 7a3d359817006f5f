"""Frozen backbones, and algorithms on their features; `PLUGIN` announces them as a plugin would."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from metabench import api
from metabench.api.algorithms import training_loss
from metabench.specs import AlgorithmSpec, BackboneSpec, hookimpl
from tiny import Centroid

SUITE = """\
name: frozen
datasets: {{blots: {{}}}}
backbones: {{{backbone}: {{}}}}
ways: [3]
shots: [2]
queries: 4
train: {{steps: 8, meta_batch: 2, validate_every: 4, validation_episodes: 5}}
eval: {{episodes: 12}}
algorithms: {{{algorithm}: {{}}}}
"""


class Projected(api.Backbone):
    """A fixed projection of the pixels; notes the number of images of each call."""

    frozen = True
    per_image = True
    input = api.BackboneInput(size=224)
    calls: ClassVar[list[int]] = []

    def __init__(self, config: Any, image_shape: tuple[int, ...]) -> None:
        super().__init__(config, image_shape)
        self.dense = torch.nn.Linear(256, 7)
        self.features = 7

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        self.calls.append(len(x))
        return self.dense(x.flatten(1))  # type: ignore[no-any-return]


class Thawed(Projected):
    frozen = False


class Mixing(Projected):
    """Says that it is `per_image`, and subtracts the mean of all images."""

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        features = super().forward(x)
        return features - features.mean(dim=0)


class Flat(api.Backbone):
    """The numbers of an image or a vector."""

    frozen = True
    per_image = True
    takes_vectors = True

    def __init__(self, config: Any, image_shape: tuple[int, ...]) -> None:
        super().__init__(config, image_shape)
        self.features = 256

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return x.flatten(1)


class OnFeatures(Centroid):
    """The nearest class mean of features."""

    reads = "features"
    functional = True

    def train_step(self, episodes: api.Episodes) -> api.Metrics:
        losses = [
            self.episode_loss(episode) if episodes.embedded else training_loss(self, episode) for episode in episodes
        ]
        self.steps += 1
        return {"loss": torch.stack(losses).mean().detach()}

    def adapt(self, support: api.Support) -> Any:
        members = torch.nn.functional.one_hot(support.y, support.way).to(support.x.dtype)
        return members.T @ support.x / members.sum(dim=0).unsqueeze(1)

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return -(query.unsqueeze(1) - state).square().sum(-1) * self.weight


class Plugin:
    """Announces all classes of this module."""

    @hookimpl
    def metabench_algorithms(self) -> list[AlgorithmSpec]:
        return [AlgorithmSpec(cls.__name__.lower(), f"{__name__}:{cls.__name__}", "") for cls in (OnFeatures,)]

    @hookimpl
    def metabench_backbones(self) -> list[BackboneSpec]:
        classes = (Projected, Thawed, Mixing, Flat)
        return [BackboneSpec(cls.__name__.lower(), f"{__name__}:{cls.__name__}", "") for cls in classes]


PLUGIN = Plugin()
