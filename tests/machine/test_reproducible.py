from __future__ import annotations

import torch

from metabench.machine.reproducible import derive_seed, seed_generators


def test_seeded_generators_draw_as_after_manual_seed() -> None:
    seed = derive_seed(3, "test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.randn(5)
        seed_generators(seed)
        assert torch.equal(torch.randn(5), expected)
        assert torch.initial_seed() == seed


def test_seeds_of_two_purposes_differ() -> None:
    assert derive_seed(0, "train 1") != derive_seed(0, "train 2")
    assert derive_seed(0, "train 1") != derive_seed(1, "train 1")
