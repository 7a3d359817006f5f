"""Distortions of training images: what they keep, and what their draws depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metabench.engine.augmentation import Augmentation
from metabench.planning.distortions import Distortion

#: Each distortion, at parameters that change nothing, and at others.
IDENTITIES: list[dict[str, Any]] = [
    {"resized_crop": {"area": [1.0, 1.0], "ratio": [1.0, 1.0]}},
    {"flip": {"chance": 0.0}},
    {"jitter": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}},
    {"rotation": {"degrees": 0.0}},
    {"affine": {"chance": 0.0}},
    {"affine": {"component": 0.0}},
    {"affine": {"degrees": 0.0, "shear": 0.0, "scale": [1.0, 1.0], "shift": 0.0}},
]
CHANGES: list[dict[str, Any]] = [
    {"crop": {"padding": 3}},
    {"resized_crop": {}},
    {"flip": {}},
    {"jitter": {}},
    {"rotation": {"degrees": 20.0}},
    {"affine": {}},
]


def augmentation(*distortions: dict[str, Any], seed: int = 0) -> Augmentation:
    return Augmentation([Distortion.model_validate(one) for one in distortions], seed)


def pictures(count: int = 16, channels: int = 3, size: int = 12) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def moved(distorted: Tensor, images: Tensor) -> int:
    """Return the number of images that changed."""
    return int(((distorted - images).abs() > 1e-5).flatten(1).any(dim=1).sum())


@pytest.mark.parametrize("distortion", IDENTITIES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_parameters_of_no_change_leave_images_as_they_are(distortion: dict[str, Any], channels: int) -> None:
    images = pictures(channels=channels)
    torch.testing.assert_close(augmentation(distortion)(images.clone(), 0), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("distortion", CHANGES, ids=str)
@settings(max_examples=15, deadline=None)
@given(
    step=st.integers(0, 10**6),
    channels=st.sampled_from([1, 2, 3]),
    height=st.integers(5, 17),
    width=st.integers(5, 17),
    count=st.integers(1, 5),
)
def test_images_keep_their_shape_and_range(
    distortion: dict[str, Any], step: int, channels: int, height: int, width: int, count: int
) -> None:
    images = torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(step))
    distorted = augmentation(distortion)(images.clone(), step)
    assert distorted.shape == images.shape
    assert distorted.dtype == images.dtype
    assert float(distorted.min()) >= -1e-6
    assert float(distorted.max()) <= 1 + 1e-6


@pytest.mark.parametrize("distortion", CHANGES, ids=str)
def test_draws_depend_on_seed_and_step_only(distortion: dict[str, Any]) -> None:
    images = pictures()
    one = augmentation(distortion)(images.clone(), 7)
    torch.rand(3)  # the default generator is neither used nor moved
    before = torch.get_rng_state()
    again = augmentation(distortion)(images.clone(), 7)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, again)
    assert not torch.equal(one, augmentation(distortion)(images.clone(), 8))
    assert not torch.equal(one, augmentation(distortion, seed=1)(images.clone(), 7))
    assert moved(one, images) > 0


def test_a_distortion_before_it_does_not_change_the_draws_of_another() -> None:
    images = pictures()
    flipped = augmentation({"jitter": {"brightness": 0, "contrast": 0, "saturation": 0}}, {"flip": {}})(images, 3)
    same = augmentation({"flip": {"chance": 0.0}}, {"flip": {}})(images, 3)
    torch.testing.assert_close(flipped, same, rtol=0, atol=1e-5)


def test_a_crop_moves_the_image_and_fills_with_black() -> None:
    images = torch.ones(200, 1, 6, 6)
    distorted = augmentation({"crop": {"padding": 2}})(images, 0)
    rows, columns = (distorted.amax(dim=axis)[:, 0].sum(dim=1) for axis in (3, 2))
    assert set(rows.tolist()) == set(columns.tolist()) == {4.0, 5.0, 6.0}
    assert torch.equal(distorted.sum(dim=(1, 2, 3)), rows * columns)


def test_a_flip_exchanges_left_and_right_of_about_its_share() -> None:
    images = pictures(400, 1, 8)
    distorted = augmentation({"flip": {"chance": 0.3}})(images, 0)
    flipped = [torch.equal(new, old.flip(-1)) for new, old in zip(distorted, images, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(distorted, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 80 < sum(flipped) < 160


def test_a_resized_crop_shows_a_part_of_the_image() -> None:
    ramp = torch.linspace(0, 1, 32).expand(300, 1, 32, 32)
    distorted = augmentation({"resized_crop": {"area": [0.25, 0.25], "ratio": [1.0, 1.0]}})(ramp, 0)
    shown = distorted[:, 0, 0, -1] - distorted[:, 0, 0, 0]
    # Half of the width: of 31/32 of the steps between its outermost pixels.
    torch.testing.assert_close(shown, torch.full_like(shown, 0.5), rtol=0, atol=0.03)
    assert float(distorted[:, 0, 0, 0].min()) < 0.05
    assert float(distorted[:, 0, 0, -1].max()) > 0.95


def test_a_rotation_by_a_quarter_is_that_of_the_array() -> None:
    images = pictures(1, 1, 9)
    turned = [augmentation({"rotation": {"degrees": 180.0}})(images, step) for step in range(400)]
    nearest = min(float((one - images.rot90(k, (2, 3))).abs().max()) for one in turned for k in (1, 3))
    assert nearest < 0.15


def drawings(count: int) -> Tensor:
    """Return images with a zero background and a bright square in the middle."""
    x = torch.zeros(count, 1, 28, 28)
    x[:, :, 9:19, 9:19] = torch.rand(count, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    return x


def test_distorted_drawings_stay_drawings() -> None:
    x = drawings(64)
    distorted = augmentation({"affine": {"chance": 1.0}})(x, 0)
    assert float(distorted.min()) >= 0
    assert float(distorted.max()) <= 1
    # Of seven components, each used with probability one half, at least one mostly is.
    assert moved(distorted, x) > 55
    assert float(distorted.flatten(1).sum(dim=1).min()) > 0.3 * float(x.flatten(1).sum(dim=1).min())
    black = torch.zeros(4, 1, 28, 28)
    assert torch.equal(augmentation({"affine": {"chance": 1.0}})(black, 0), black)


def test_about_as_many_images_are_distorted_as_asked_for() -> None:
    x = drawings(400)
    assert 80 < moved(augmentation({"affine": {"chance": 0.3}})(x, 0), x) < 160


def test_grey_images_have_no_saturation_and_dark_ones_stay_dark() -> None:
    grey = pictures(8, 1).expand(8, 3, 12, 12).clone()
    distorted = augmentation({"jitter": {"brightness": 0.0, "contrast": 0.0, "saturation": 1.0}})(grey, 0)
    torch.testing.assert_close(distorted, grey, rtol=0, atol=1e-5)
    black = torch.zeros(8, 3, 4, 4)
    assert torch.equal(augmentation({"jitter": {}})(black, 0), black)
