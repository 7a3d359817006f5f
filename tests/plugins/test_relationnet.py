"""Relation networks: the module against plain layers, maps of several sizes, and symmetries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Backbone, Classification, Episode, Setup, Support, Unfit
from metabench.testing import AlgorithmChecks
from metabench_plugins.algorithms.relationnet import RelationModule, RelationNet, RelationNetConfig

Make = Callable[..., Any]


class TestRelationNet(AlgorithmChecks):
    algorithm = "relationnet"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def module(*map_shape: int, **params: Any) -> RelationModule:
    torch.manual_seed(0)
    return RelationModule(map_shape, RelationNetConfig(**params)).double()  # type: ignore[arg-type]


def relation_of_pair(relation: RelationModule, one: Tensor, other: Tensor) -> Tensor:
    """Return the log-odds of two [C, h, w] maps by one convolution of both, as in the paper's figure 2 and code."""
    padding = int(relation.second.padding[0])
    both = torch.cat([one, other]).unsqueeze(0)
    weight = torch.cat([relation.of_class.weight, relation.of_query.weight], dim=1)
    x = F.conv2d(both, weight, relation.of_class.bias, padding=padding)
    x = nn.Sequential(relation.first_norm, nn.ReLU(), nn.MaxPool2d(2))(x)
    x = nn.Sequential(relation.second, relation.second_norm, nn.ReLU(), nn.MaxPool2d(2))(x)
    layers = nn.Sequential(nn.Flatten(), relation.hidden, nn.ReLU(), relation.output)
    result: Tensor = layers(x).squeeze()
    return result


@pytest.mark.parametrize(("side", "padding", "inputs"), [(5, 1, 64), (19, 0, 64 * 9)])
def test_the_module_is_that_of_the_authors_code(side: int, padding: int, inputs: int) -> None:
    relation = module(6, side, side, padding=padding).eval()
    assert relation.hidden.in_features == inputs
    assert relation.hidden.out_features == 8
    classes, queries = drawn(3, 6, side, side), drawn(4, 6, side, side, seed=1)
    with torch.no_grad():
        scores = relation(classes, queries)
        expected = torch.stack([relation_of_pair(relation, one, query) for query in queries for one in classes])
    torch.testing.assert_close(scores.flatten(), expected, rtol=1e-10, atol=1e-12)


def relationnet(flat: Callable[..., Backbone], way: int = 3) -> RelationNet:
    torch.manual_seed(0)
    backbone = flat((2, 4, 4))
    backbone.map_shape = (2, 4, 4)
    return RelationNet(RelationNetConfig(), Setup(backbone, None, None, 1)).double().eval()


def test_a_class_is_the_sum_of_the_maps_of_its_images(flat: Callable[..., Backbone]) -> None:
    x, labels = drawn(5, 32), torch.tensor([1, 0, 1, 2, 1])
    classes = relationnet(flat).adapt(Support(x, labels, Classification(3)))
    assert classes.shape == (3, 2, 4, 4)
    torch.testing.assert_close(classes[1].flatten(), x[0] + x[2] + x[4])
    torch.testing.assert_close(classes[2].flatten(), x[3])


def test_the_loss_is_the_squared_error_of_the_relations(flat: Callable[..., Backbone]) -> None:
    learner = relationnet(flat)
    support = Support(drawn(3, 32), torch.arange(3), Classification(3))
    episode = Episode(support, drawn(4, 32, seed=1), torch.tensor([0, 2, 1, 1]))
    relations = learner.answer(learner.adapt(support), episode.query_x).exp()
    assert bool(((relations > 0) & (relations < 1)).all())
    wanted = torch.zeros(4, 3, dtype=torch.float64)
    for query, label in enumerate([0, 2, 1, 1]):
        wanted[query, label] = 1
    torch.testing.assert_close(learner.episode_loss(episode), (relations - wanted).square().mean())


def test_relabelling_permutes_the_scores(flat: Callable[..., Backbone]) -> None:
    learner, query = relationnet(flat), drawn(4, 32, seed=1)
    support = Support(drawn(6, 32), torch.tensor([0, 1, 2, 2, 1, 0]), Classification(3))
    new_label = torch.tensor([2, 0, 1])
    renamed = replace(support, y=new_label[support.y])
    before, after = (learner.answer(learner.adapt(one), query) for one in (support, renamed))
    torch.testing.assert_close(after[:, new_label], before, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(after, before, rtol=1e-6)


def test_features_that_are_no_maps_are_maps_of_one_pixel(flat: Callable[..., Backbone]) -> None:
    learner = RelationNet(RelationNetConfig(), Setup(flat((1, 1, 7)), None, None, 1)).double().eval()
    classes = learner.adapt(Support(drawn(2, 7), torch.arange(2), Classification(2)))
    assert classes.shape == (2, 7, 1, 1)
    assert learner.answer(classes, drawn(3, 7, seed=1)).shape == (3, 2)


def test_maps_too_small_for_convolutions_without_padding_are_refused(flat: Callable[..., Backbone]) -> None:
    with pytest.raises(Unfit, match=r"maps of \(1, 1\) are too small"):
        RelationNet(RelationNetConfig(padding=0), Setup(flat((1, 1, 7)), None, None, 1))


def test_conv4_tells_the_shape_of_its_maps(conv4: Callable[..., Backbone]) -> None:
    assert conv4(downsample="pool").map_shape == (4, 1, 1)
    assert conv4(downsample="stride").map_shape is None
