"""Corrupted queries, and how strangers are told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from metabench.analysis.shift import auroc
from metabench.api import Split
from metabench.data.sampler import EpisodeShape
from metabench.engine.corruptions import Corruption
from metabench.engine.streams import EpisodeStream
from metabench.errors import CellFailed
from tiny import CPU

pytestmark = pytest.mark.usefixtures("one_thread")

# ------------------------------------------------------------------------------------------------ the metric


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.25, 0.7, 0.9]), st.booleans()), min_size=2, max_size=20).filter(
        lambda queries: len({known for _, known in queries}) == 2
    )
)
def test_the_area_is_that_of_scikit_learn(queries: list[tuple[float, bool]]) -> None:
    confidences, known = np.array([c for c, _ in queries]), np.array([k for _, k in queries])
    assert auroc(confidences[None], known[None])[0] == pytest.approx(roc_auc_score(known, confidences), abs=1e-12)


# ------------------------------------------------------------------------------------------------- corruptions


def corrupt(name: str, images: Tensor, severity: int = 5, episodes: int = 1, first: int = 0) -> Tensor:
    return Corruption(name, severity, 0)(images, first, episodes)


def grey(value: float, *shape: int) -> Tensor:
    return torch.full(shape, value)


def test_noise_has_the_strength_of_its_severity() -> None:
    found = corrupt("gaussian_noise", grey(0.5, 40, 3, 32, 32), severity=1)
    assert float(found.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(found.std()) == pytest.approx(0.08, abs=1e-3)


def test_impulses_are_black_and_white_in_equal_parts() -> None:
    found = corrupt("impulse_noise", grey(0.5, 40, 3, 32, 32), severity=5)
    shares = [float((found == value).float().mean()) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.135, 0.73, 0.135], abs=4e-3)


def test_contrast_shrinks_the_distance_to_the_mean_of_each_channel() -> None:
    images = torch.tensor([0.2, 0.4, 0.6, 0.8]).reshape(1, 1, 2, 2)
    images = torch.cat([images, 0.5 * images, 1 - images], dim=1)
    means = torch.tensor([0.5, 0.25, 0.5]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(corrupt("contrast", images), means + 0.05 * (images - means))


def test_brightness_raises_the_value_and_keeps_the_hue() -> None:
    pixels = torch.tensor([[0.4, 0.2, 0.0], [0.8, 0.8, 0.4], [0.0, 0.0, 0.0]])  # orange, light yellow, black
    found = corrupt("brightness", pixels.T.reshape(1, 3, 1, 3), severity=2)
    expected = torch.tensor([[0.6, 0.3, 0.0], [1.0, 1.0, 0.5], [0.2, 0.2, 0.2]])
    torch.testing.assert_close(found.reshape(3, 3).T, expected)


def test_a_blur_has_the_same_share_of_the_side_at_every_size() -> None:
    for side in (28, 112):
        line = torch.zeros(1, 1, side, side)
        line[..., side // 2] = 1
        blurred = corrupt("gaussian_blur", line, severity=5)[0, 0, side // 2]
        places = torch.arange(side)
        centre = float((places * blurred).sum())
        spread = float(((places - centre) ** 2 * blurred).sum()) ** 0.5
        assert spread / side == pytest.approx(6 / 224, rel=0.02)
    torch.testing.assert_close(corrupt("gaussian_blur", grey(0.3, 2, 3, 16, 16)), grey(0.3, 2, 3, 16, 16))


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "gaussian_blur", "contrast", "brightness"])
def test_an_episode_is_corrupted_alike_in_every_batch(name: str) -> None:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = corrupt(name, images, episodes=4, first=7)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    assert not torch.equal(whole, images)
    for i in range(4):
        assert torch.equal(corrupt(name, images[3 * i : 3 * i + 3], first=7 + i), whole[3 * i : 3 * i + 3])


def test_only_queries_are_corrupted_before_they_are_normalised() -> None:
    images = torch.randint(0, 256, (24, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(5) * 6, list("abcd"), mean=(0.5,), std=(0.25,))
    plain = EpisodeStream(split, EpisodeShape(2, 1, 3), "test", 0, CPU)
    corruption = Corruption("gaussian_noise", 3, 0)
    one, other = plain.batch(5, 4), plain.corrupted(corruption).batch(5, 4)
    assert torch.equal(one.support_x, other.support_x)
    scaled = corruption((one.query_x * 0.25 + 0.5).reshape(-1, 1, 4, 4), 5, 4)
    torch.testing.assert_close(other.query_x, (scaled.reshape(one.query_x.shape) - 0.5) / 0.25)


def test_vectors_are_not_corrupted() -> None:
    split = Split(torch.rand(12, 5), torch.arange(4) * 4, list("abc"))
    stream = EpisodeStream(split, EpisodeShape(2, 1, 1), "test", 0, CPU)
    with pytest.raises(CellFailed, match="the data are vectors, and images can be corrupted only"):
        stream.corrupted(Corruption("contrast", 1, 0))
