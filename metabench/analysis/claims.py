"""Say whether a comparison is about two methods, or about the weights of their trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from metabench.analysis.crossed import LEAST_SEEDS, CrossedInterval
from metabench.analysis.stats import Floats


@dataclass(frozen=True)
class Trials:
    """What one method did with each training seed.

    Attributes:
        by_seed: [n] value of each episode, by training seed.
        every_seed: whether every seed would give the same values, so that one stands for all.
        complete: whether no training or test of the method has failed. A method is not judged by the seeds that went
            well.
    """

    by_seed: Mapping[int, Floats]
    every_seed: bool = False
    complete: bool = True

    def of(self, seeds: list[int]) -> Floats:
        """Return the [S, n] values of some seeds."""
        if self.every_seed:
            values = next(iter(self.by_seed.values()))
            return np.broadcast_to(values, (len(seeds), len(values)))
        return np.stack([self.by_seed[seed] for seed in seeds])

    def first(self, episodes: int) -> Trials:
        """Return the trials on the first episodes."""
        return Trials(
            {seed: values[:episodes] for seed, values in self.by_seed.items()}, self.every_seed, self.complete
        )


def seeds_in_common(first: Trials, second: Trials) -> list[int]:
    """Return the seeds with which both methods were trained; equal seeds have equal data order and initial weights."""
    if first.every_seed:
        return sorted(second.by_seed)
    if second.every_seed:
        return sorted(first.by_seed)
    return sorted(first.by_seed.keys() & second.by_seed.keys())


def differences_by_seed(first: Trials, second: Trials) -> Floats | None:
    """Return the [S, n] differences, first minus second, that a claim about both methods rests on.

    Returns:
        The differences of the seeds in common; None where they are fewer than `LEAST_SEEDS`, where a seed of a method
        has failed, and where no seed changes either method.
    """
    if not (first.complete and second.complete) or (first.every_seed and second.every_seed):
        return None
    seeds = seeds_in_common(first, second)
    return first.of(seeds) - second.of(seeds) if len(seeds) >= LEAST_SEEDS else None


def is_about_methods(first: Trials, second: Trials) -> bool:
    """Return whether a comparison is about the methods: of enough seeds, or of methods that no seed changes."""
    if not (first.complete and second.complete):
        return False
    both = first.every_seed and second.every_seed
    return both or len(seeds_in_common(first, second)) >= LEAST_SEEDS


def settled_by_seeds(interval: CrossedInterval, quantiles: float) -> int | None:
    """Return the training seeds needed to find a difference on these episodes.

    Args:
        interval: the difference, taken as the true one.
        quantiles: sum of the normal quantiles of level and power.

    Returns:
        The seeds, at least `LEAST_SEEDS`; None where no number of seeds finds it on so few episodes.
    """
    left = (interval.mean / quantiles) ** 2 - interval.episode_variance
    return None if left <= 1e-18 else max(LEAST_SEEDS, math.ceil(interval.seed_variance / left))
