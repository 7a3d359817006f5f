"""Floors: nearest class means of pixels, and of features of a network as it was drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metabench.api import Algorithm, Classification, Setup, Support, Unfit
from metabench_plugins.algorithms.floors import NearestPixel, Untrained
from metabench_plugins.backbones.conv4 import Conv4


def built(floor: type[Algorithm], backbone: Any = Conv4) -> Algorithm:
    config = backbone.Config(**({"channels": 4} if issubclass(backbone, Conv4) else {}))
    return floor(floor.Config(), Setup(backbone(config, (1, 16, 16)), None, None, 0))


def test_the_nearest_mean_image_is_the_class() -> None:
    black, grey, white = (torch.full((1, 2, 2), value) for value in (0.0, 0.4, 1.0))
    floor = built(NearestPixel)
    support = Support(torch.stack([black, grey, white, white]), torch.tensor([0, 0, 1, 1]), Classification(2))
    means = floor.adapt(support)
    torch.testing.assert_close(means, torch.tensor([[0.2] * 4, [1.0] * 4]))
    query = torch.stack([grey, white])
    expected = -4 * torch.tensor([[0.2**2, 0.6**2], [0.8**2, 0.0]])
    torch.testing.assert_close(floor.answer(means, query), expected)


def test_the_nearest_pixel_has_no_parameters_to_train() -> None:
    assert not any(parameter.requires_grad for parameter in built(NearestPixel).parameters())


def test_untrained_takes_the_nearest_mean_feature() -> None:
    floor = built(Untrained)
    support = Support(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0, 1]), Classification(2))
    scores = floor.answer(floor.adapt(support), torch.tensor([[2.0, 1.0]]))
    torch.testing.assert_close(scores, torch.tensor([[-1.0, -13.0]]))


class Pretrained(Conv4):
    """A network whose weights are not drawn."""

    draws = False


def test_weights_that_are_not_drawn_are_no_untrained_network() -> None:
    with pytest.raises(Unfit, match="not drawn at random"):
        built(Untrained, Pretrained)
