"""DropBlock zeros regions of feature maps, as often as the paper says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metabench_plugins.backbones.drop_block import DropBlock


def dropped(block: DropBlock, x: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return block.train()(x)


def at_full_rate(size: int, rate: float = 0.1) -> DropBlock:
    return DropBlock(size, rate, steps=1)


def expected_share(size: int, side: int, rate: float) -> float:
    """Return the mean probability that no corner whose region covers a place is drawn."""
    corners = side - size + 1
    gamma = rate / size**2 * (side / corners) ** 2
    covering = torch.tensor([min(place, corners - 1) - max(place - size + 1, 0) + 1 for place in range(side)])
    return float(((1 - gamma) ** (covering[:, None] * covering)).mean())


@pytest.mark.parametrize(("size", "side"), [(5, 10), (5, 5), (2, 8), (2, 2), (1, 6)])
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_the_kept_share_is_that_of_the_formula(size: int, side: int, rate: float) -> None:
    features = dropped(at_full_rate(size, rate), torch.ones(200, 50, side, side))
    kept = float((features != 0).float().mean())
    # A map of one region is kept or dropped whole: 10 000 maps have a standard error below .005.
    assert kept == pytest.approx(expected_share(size, side, rate), abs=0.015)
    assert kept == pytest.approx(1 - rate, abs=0.4 * rate), "overlaps make the share a little smaller"


def test_kept_values_are_rescaled_by_the_share_that_is_kept() -> None:
    x = torch.rand(40, 8, 10, 10, dtype=torch.float64) + 1
    features = dropped(at_full_rate(3), x)
    kept = features != 0
    expected = x[kept] * kept.numel() / kept.sum()
    torch.testing.assert_close(features[kept], expected, rtol=1e-6, atol=0)
    assert 0 < int(kept.sum()) < kept.numel()


def test_dropped_values_are_unions_of_squares_within_the_map() -> None:
    size = 3
    gone = dropped(at_full_rate(size, 0.05), torch.ones(300, 1, 9, 9)) == 0
    assert gone.any()
    corners = gone.unfold(2, size, 1).unfold(3, size, 1).all(dim=-1).all(dim=-1)
    squares = torch.zeros_like(gone)
    for image, channel, row, column in corners.nonzero().tolist():
        squares[image, channel, row : row + size, column : column + size] = True
    assert torch.equal(squares, gone)


def test_the_rate_rises_linearly_with_the_number_of_training_forwards() -> None:
    block, x = DropBlock(1, 0.4, steps=4), torch.ones(100, 20, 10, 10)
    shares = [float((dropped(block, x, seed) == 0).float().mean()) for seed in range(6)]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4], abs=0.01)


def test_a_loaded_block_goes_on_at_its_rate() -> None:
    block, x = DropBlock(2, 0.5, steps=8), torch.ones(10, 4, 6, 6)
    for seed in range(3):
        dropped(block, x, seed)
    resumed = DropBlock(2, 0.5, steps=8)
    resumed.load_state_dict(block.state_dict())
    assert torch.equal(dropped(resumed, x, seed=3), dropped(block, x, seed=3))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_nothing_is_dropped_drawn_or_counted_in_eval_mode_or_without_a_rate(rate: float) -> None:
    block, x = DropBlock(2, rate, steps=1).train(rate == 0), torch.rand(3, 4, 6, 6)
    before = torch.get_rng_state()
    assert block(x) is x
    assert torch.equal(before, torch.get_rng_state())
    assert int(block.forwards) == 0


@pytest.mark.parametrize("shape", [(3, 3), (2, 7)])
def test_a_region_is_no_larger_than_the_map(shape: tuple[int, int]) -> None:
    features = dropped(at_full_rate(5, 0.5), torch.ones(50, 4, *shape))
    assert 0 < float((features == 0).float().mean()) < 1


def test_a_map_that_is_dropped_whole_is_zero_and_finite() -> None:
    features = dropped(at_full_rate(4, 0.99), torch.ones(1, 1, 4, 4))
    assert features.isfinite().all()


def test_features_keep_their_dtype() -> None:
    assert dropped(at_full_rate(2), torch.ones(2, 3, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
