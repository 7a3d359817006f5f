"""FEAT's transformer against plain torch layers, its two losses, and its symmetries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Backbone, Classification, Episode, Setup, Support
from metabench.testing import AlgorithmChecks
from metabench_plugins.algorithms.feat import FEAT, FEATConfig, SetTransformer
from metabench_plugins.algorithms.protonet import class_means

FEATURES, WAY = 6, 3


class TestFEAT(AlgorithmChecks):
    algorithm = "feat"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def feat(flat: Callable[..., Backbone], **params: Any) -> FEAT:
    torch.manual_seed(0)
    config = FEATConfig.model_validate({"dropout": 0.0, "attention_dropout": 0.0, **params})
    return FEAT(config, Setup(flat((1, 1, FEATURES)), None, None, 1)).double()


def episode() -> Episode:
    labels = torch.tensor([2, 0, 1, 1, 2, 0])
    return Episode(Support(drawn(6, FEATURES), labels, Classification(WAY)), drawn(3, FEATURES, seed=1), labels[:3])


def adapted(transformer: SetTransformer, members: Tensor) -> Tensor:
    """Return the adapted members of one set by torch's own attention."""
    attended = F.scaled_dot_product_attention(
        transformer.queries(members), transformer.keys(members), transformer.values(members)
    )
    return F.layer_norm(
        transformer.output(attended) + members, (FEATURES,), transformer.norm.weight, transformer.norm.bias
    )


def test_prototypes_are_adapted_by_attention_to_one_another(flat: Callable[..., Backbone]) -> None:
    learner, drawn_episode = feat(flat).eval(), episode()
    prototypes = class_means(drawn_episode.support.x, drawn_episode.support.y, WAY)
    expected = adapted(learner.transformer, prototypes)
    torch.testing.assert_close(learner.adapt(drawn_episode.support), expected, rtol=1e-10, atol=1e-12)
    scores = learner.answer(expected, drawn_episode.query_x)
    distances = torch.cdist(drawn_episode.query_x, expected).square()
    torch.testing.assert_close(scores, -distances / 64, rtol=1e-10, atol=1e-12)


def test_the_contrastive_loss_compares_images_with_the_centres_of_their_adapted_classes(
    flat: Callable[..., Backbone],
) -> None:
    drawn_episode = episode()
    images = torch.cat([drawn_episode.support.x, drawn_episode.query_x])
    labels = torch.cat([drawn_episode.support.y, drawn_episode.query_y])
    with_contrast, without = (
        feat(flat, contrast=0.5, contrast_temperature=8.0).train(),
        feat(flat, contrast=0.0).train(),
    )
    centres = torch.stack(
        [adapted(with_contrast.transformer, images[labels == label]).mean(dim=0) for label in range(WAY)]
    )
    contrast = F.cross_entropy(-torch.cdist(images, centres).square() / 8, labels)
    expected = without.episode_loss(drawn_episode) + 0.5 * contrast
    torch.testing.assert_close(with_contrast.episode_loss(drawn_episode), expected, rtol=1e-10, atol=1e-12)


def test_the_adapted_set_does_not_depend_on_the_order_of_its_members(flat: Callable[..., Backbone]) -> None:
    transformer, members, order = feat(flat).transformer, drawn(5, FEATURES), torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(transformer(members)[order], transformer(members[order]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_for_training_only(flat: Callable[..., Backbone], training: bool) -> None:
    learner, drawn_episode = feat(flat, dropout=0.5).train(training), episode()
    first, second = (learner.adapt(drawn_episode.support) for _ in range(2))
    assert torch.equal(first, second) is not training


def test_the_transformer_learns_ten_times_as_fast_as_the_network(
    flat: Callable[..., Backbone], smooth: Callable[..., Backbone]
) -> None:
    learner = FEAT(FEATConfig(), Setup(smooth((1, 1, FEATURES)), None, None, 1))
    rates = {name.split(".")[0]: learner.lr_multiplier(name) for name, _ in learner.named_parameters()}
    assert rates == {"backbone": 1.0, "transformer": 10.0}
