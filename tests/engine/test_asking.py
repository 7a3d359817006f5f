"""Features of backbones that are per-image, and of others; queries at once and alone."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from metabench.api import Algorithm, Backbone, Classification, Config, Episodes, Setup, Support
from metabench.conformance.subjects import SIZE, episodes
from metabench.engine.asking import predict, predict_alone
from metabench.engine.batching import InOrder
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


class Nearest(Algorithm):
    """Classify by the nearest class mean; count the adaptations."""

    reads = "features"
    adapted = 0

    def adapt(self, support: Support) -> Tensor:
        self.adapted += 1
        return torch.stack([support.x[support.y == label].mean(dim=0) for label in range(support.way)])

    def answer(self, means: Tensor, query: Tensor) -> Tensor:
        return -torch.cdist(query, means)


class NearestPixels(Nearest):
    """The same of pixels."""

    reads = "images"

    def adapt(self, support: Support) -> Tensor:
        return super().adapt(replace(support, x=support.x.flatten(1)))

    def answer(self, means: Tensor, query: Tensor) -> Tensor:
        return super().answer(means, query.flatten(1))


def build(per_image: bool, size: int = 4, cls: type[Nearest] = Nearest) -> tuple[Nearest, Counting]:
    torch.manual_seed(0)
    backbone = Counting(per_image, size)
    return cls(cls.Config(), Setup(backbone, WAY, WAY, 10)).double(), backbone


def random_episodes(count: int, size: int = 4) -> Episodes:
    generator = torch.Generator().manual_seed(1)

    def random_images(images: int) -> Tensor:
        return torch.rand(count, images, 1, size, size, generator=generator, dtype=torch.float64)

    query_y = torch.zeros(count, QUERIES, dtype=torch.long)
    support_y = SUPPORT_Y.expand(count, -1)
    return Episodes(random_images(WAY * SHOT), support_y, random_images(QUERIES), query_y, Classification(WAY))


@pytest.mark.parametrize("per_image", [True, False])
def test_an_algorithm_reads_the_features_of_its_episode(per_image: bool) -> None:
    algorithm, backbone = build(per_image)
    batch = random_episodes(5)
    expected = []
    for episode in batch:
        features = backbone(torch.cat([episode.support.x, episode.query_x]))
        state = algorithm.adapt(replace(episode.support, x=features[: WAY * SHOT]))
        expected.append(algorithm.answer(state, features[WAY * SHOT :]))
    torch.testing.assert_close(predict(algorithm, batch, 0, 0), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_a_per_image_backbone_embeds_all_episodes_in_one_pass() -> None:
    algorithm, backbone = build(per_image=True)
    predict(algorithm, random_episodes(5), 0, 0)
    assert backbone.seen == [5 * (WAY * SHOT + QUERIES)]


@pytest.mark.parametrize("mixes", [True, False])
def test_a_backbone_that_mixes_images_is_measured_as_transductive(mixes: bool) -> None:
    stream = episodes("test", WAY, SHOT, QUERIES)
    algorithm = Nearest(Nearest.Config(), Setup(Counting(per_image=True, size=SIZE, mixes=mixes), WAY, WAY, 10))
    assert is_transductive(algorithm, stream, 0, BatchSize(torch.device("cpu"))) == mixes


def test_a_backbone_that_is_not_per_image_embeds_one_episode_per_pass() -> None:
    algorithm, backbone = build(per_image=False)
    predict(algorithm, random_episodes(5), 0, 0)
    assert backbone.seen == [WAY * SHOT + QUERIES] * 5


def test_a_pass_has_whole_episodes_and_a_bounded_number_of_pixels() -> None:
    algorithm, backbone = build(per_image=True, size=160)
    predict(algorithm, random_episodes(5, size=160), 0, 0)
    assert backbone.seen == [20, 20, 10]
    algorithm, backbone = build(per_image=True, size=300)
    predict(algorithm, random_episodes(2, size=300), 0, 0)
    assert backbone.seen == [10, 10]


@pytest.mark.parametrize("per_image", [True, False])
def test_a_query_alone_is_embedded_with_its_support_set_only(per_image: bool) -> None:
    algorithm, backbone = build(per_image)
    backbone.mixes = True
    batch = random_episodes(2)
    alone = predict_alone(algorithm, batch, 0, 0)
    assert backbone.seen == [WAY * SHOT + 1] * (2 * QUERIES)
    for number in range(QUERIES):
        only = replace(batch, query_x=batch.query_x[:, [number]])
        each = torch.cat([predict(algorithm, only[i : i + 1], 0, i) for i in range(2)])
        torch.testing.assert_close(alone[:, [number]], each, rtol=1e-12, atol=1e-12)


def test_an_algorithm_that_reads_images_adapts_once_for_all_queries_alone() -> None:
    algorithm, _ = build(per_image=True, cls=NearestPixels)
    batch = random_episodes(3)
    alone = predict_alone(algorithm, batch, 0, 0)
    assert algorithm.adapted == 3
    torch.testing.assert_close(alone, predict(algorithm, batch, 0, 0), rtol=1e-12, atol=1e-12)


class Noisy(NearestPixels):
    """Draws random numbers to adapt, and others to answer."""

    drawn: ClassVar[list[list[float]]] = []

    def adapt(self, support: Support) -> Tensor:
        self.drawn.append(torch.rand(2).tolist())
        return super().adapt(support)

    def answer(self, means: Tensor, query: Tensor) -> Tensor:
        self.drawn.append(torch.rand(2).tolist())
        return super().answer(means, query)


def test_adapting_and_answering_draw_different_numbers_and_each_answer_the_same() -> None:
    algorithm, _ = build(per_image=True, cls=Noisy)
    algorithm.batching = InOrder()
    batch = random_episodes(2)
    drawn: list[list[list[float]]] = []
    for episodes_of_batch, first in ((batch, 0), (batch[1:2], 1)):
        Noisy.drawn = []
        predict_alone(algorithm, episodes_of_batch, 0, first)
        drawn.append(Noisy.drawn)
    per_episode = 1 + QUERIES
    whole, second = drawn
    assert whole[per_episode:] == second, "they depend on the number of the episode, not on its batch"
    for adapted, *answers in (whole[:per_episode], second):
        assert adapted not in answers
        assert answers == [answers[0]] * QUERIES
    assert whole[0] != second[0]
