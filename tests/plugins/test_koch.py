"""The network of Koch et al. 2015 is that of their figure 4, and keeps the rules of backbones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from metabench.api import Unfit
from metabench.testing import BackboneChecks
from metabench_plugins.backbones.koch import Koch, KochConfig

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

SMALL: dict[str, Any] = {"channels": [2, 3, 4, 5]}


def test_filters_parameters_and_features_are_those_of_the_paper() -> None:
    network = Koch(KochConfig(), (1, 105, 105))
    shapes = [tuple(convolution.weight.shape) for convolution in network.convolutions]  # type: ignore[union-attr, operator]
    assert shapes == [(64, 1, 10, 10), (128, 64, 7, 7), (128, 128, 4, 4), (256, 128, 4, 4)]
    assert network.features == 9216


def test_it_is_convolutions_relu_and_pooling_but_for_the_last() -> None:
    network: Any = Koch(KochConfig(channels=[3, 4, 5, 6]), (1, 70, 105)).double().eval()
    x = torch.randn(4, 1, 70, 105, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        expected = x
        for number, convolution in enumerate(network.convolutions):
            expected = F.relu(F.conv2d(expected, convolution.weight, convolution.bias))
            expected = F.max_pool2d(expected, 2) if number < 3 else expected
        torch.testing.assert_close(network(x), expected.flatten(1), rtol=1e-9, atol=1e-9)


def test_a_small_image_is_refused() -> None:
    Koch(KochConfig(channels=[2, 2, 2, 2]), (1, 65, 65))
    with pytest.raises(Unfit, match=r"at least 65×65 pixels, not \(64, 105\)"):
        Koch(KochConfig(), (1, 64, 105))


class TestKoch(BackboneChecks):
    backbone = "koch"
    params = SMALL
    image_shapes = ((1, 65, 65), (3, 70, 66))
