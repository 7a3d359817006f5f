"""`EmbeddingAlgorithm` on backbones that are per-image, and on others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metabench.api import AlgorithmConfig, Backbone, Config, EmbeddingAlgorithm, Setup
from metabench.conformance.algorithms import SIZE, episodes
from metabench.engine.controls import is_transductive
from metabench.machine.memory import BatchSize

WAY, SHOT, QUERIES = 3, 2, 4
SUPPORT_Y = torch.arange(WAY).repeat(SHOT)


class Counting(Backbone):
    """A linear layer that records the number of images of each call.

    Args:
        per_image: the value of `Backbone.per_image`.
        size: height and width of an image.
        mixes: whether features depend on the other images; by default, unless `per_image`.
    """

    def __init__(self, per_image: bool, size: int = 4, mixes: bool | None = None) -> None:
        super().__init__(Config(), (1, size, size))
        self.layer = nn.Linear(size * size, 8)
        self.features = 8
        self.per_image = per_image
        self.mixes = not per_image if mixes is None else mixes
        self.seen: list[int] = []

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        self.seen.append(len(x))
        features: Tensor = self.layer(x.flatten(1))
        return features / (1 + features.mean(dim=0).abs()) if self.mixes else features


class Nearest(EmbeddingAlgorithm):
    """Classify by the nearest class mean."""

    Config = AlgorithmConfig

    def feature_scores(self, support: Tensor, support_y: Tensor, query: Tensor, way: int) -> Tensor:
        means = torch.stack([support[support_y == label].mean(dim=0) for label in range(way)])
        return -torch.cdist(query, means)


def build(per_image: bool, size: int = 4) -> tuple[Nearest, Counting]:
    torch.manual_seed(0)
    backbone = Counting(per_image, size)
    return Nearest(AlgorithmConfig(), Setup(backbone, WAY, WAY, 10)).double(), backbone


def random_episodes(count: int, size: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)

    def random_images(images: int) -> Tensor:
        return torch.rand(count, images, 1, size, size, generator=generator, dtype=torch.float64)

    support_y = SUPPORT_Y.expand(count, -1)
    return {
        "support_x": random_images(WAY * SHOT),
        "support_y": support_y,
        "query_x": random_images(QUERIES),
        "way": WAY,
    }


@pytest.mark.parametrize("per_image", [True, False])
def test_scores_are_those_of_episode_scores(per_image: bool) -> None:
    algorithm, _ = build(per_image)
    batch = random_episodes(5)
    rows = zip(batch["support_x"], batch["support_y"], batch["query_x"], strict=True)
    with torch.no_grad():
        expected = torch.stack([algorithm.episode_scores(*row, WAY) for row in rows])
    torch.testing.assert_close(algorithm.predict(**batch), expected, rtol=1e-12, atol=1e-12)


def test_a_per_image_backbone_embeds_all_episodes_in_one_pass() -> None:
    algorithm, backbone = build(per_image=True)
    algorithm.predict(**random_episodes(5))
    assert backbone.seen == [5 * (WAY * SHOT + QUERIES)]


@pytest.mark.parametrize("mixes", [True, False])
def test_a_backbone_that_mixes_images_is_measured_as_transductive(mixes: bool) -> None:
    stream = episodes("test", WAY, SHOT, QUERIES)
    algorithm = Nearest(AlgorithmConfig(), Setup(Counting(per_image=True, size=SIZE, mixes=mixes), WAY, WAY, 10))
    assert is_transductive(algorithm, stream, 0, BatchSize(torch.device("cpu"))) == mixes


def test_a_backbone_that_is_not_per_image_embeds_one_episode_per_pass() -> None:
    algorithm, backbone = build(per_image=False)
    algorithm.predict(**random_episodes(5))
    assert backbone.seen == [WAY * SHOT + QUERIES] * 5


def test_a_pass_has_whole_episodes_and_a_bounded_number_of_pixels() -> None:
    algorithm, backbone = build(per_image=True, size=160)
    algorithm.predict(**random_episodes(5, size=160))
    assert backbone.seen == [20, 20, 10]
    algorithm, backbone = build(per_image=True, size=300)
    algorithm.predict(**random_episodes(2, size=300))
    assert backbone.seen == [10, 10]


def test_a_subclass_that_overrides_episode_scores_sees_the_images() -> None:
    class Brightest(Nearest):
        def episode_scores(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
            return query_x.mean(dim=(1, 2, 3)).unsqueeze(1).expand(-1, way)

    algorithm = Brightest(AlgorithmConfig(), Setup(Counting(per_image=True), WAY, WAY, 10))
    batch = random_episodes(2)
    expected = batch["query_x"].mean(dim=(2, 3, 4)).unsqueeze(2).expand(-1, -1, WAY)
    assert torch.equal(algorithm.predict(**batch), expected)
