"""How well two implementations of a method agree."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

#: Number of losses compared in float32, from the start of a training.
FLOAT32_LOSSES = 20
#: Largest difference of the first losses.
FLOAT64_TOLERANCE, FLOAT32_TOLERANCE = 1e-8, 1e-4
#: Two-sided 95 % points of Student's t, by degrees of freedom.
_STUDENT = {1: 12.706, 2: 4.303}


class Agreement:
    """Losses and accuracies of two implementations.

    Args:
        method: name of the method.
        peer: name of the other implementation.
        exact: losses of metabench and of the peer in float64.
    """

    def __init__(self, method: str, peer: str, exact: Sequence[Sequence[float]]) -> None:
        self.method, self.peer, self.exact = method, peer, exact
        self.trainings: dict[int, Mapping[str, Any]] = {}

    def add(self, seed: int, training: Mapping[str, Any]) -> None:
        """Add a training in float32: losses and accuracies of both."""
        self.trainings[seed] = training

    @property
    def float64_difference(self) -> float:
        """Return the largest difference of the first losses in float64."""
        return largest_difference(self.exact)

    @property
    def float32_difference(self) -> float:
        """Return the largest difference of the first losses in float32, over all seeds."""
        firsts = [[side[:FLOAT32_LOSSES] for side in training["losses"]] for training in self.trainings.values()]
        return max(map(largest_difference, firsts))

    @property
    def accuracies(self) -> dict[int, tuple[float, float]]:
        """Return the mean test accuracies of metabench and of the peer, by seed."""
        return {seed: _means(training["accuracies"]) for seed, training in self.trainings.items()}

    @property
    def between_seeds(self) -> float | None:
        """Return half the 95 % interval of metabench's accuracy between seeds; None of one seed."""
        return half_interval([ours for ours, _ in self.accuracies.values()])

    def as_json(self) -> dict[str, Any]:
        """Return all figures as plain data; accuracies of episodes are left out."""
        return {
            "method": self.method,
            "peer": self.peer,
            "float64": {"losses": len(self.exact[0]), "largest_difference": self.float64_difference},
            "float32": {"losses": FLOAT32_LOSSES, "largest_difference": self.float32_difference},
            "seeds": [
                {
                    "seed": seed,
                    "metabench": ours,
                    "peer": theirs,
                    "difference_ci95_of_episodes": episode_interval(self.trainings[seed]["accuracies"]),
                }
                for seed, (ours, theirs) in self.accuracies.items()
            ],
            "between_seeds_ci95": self.between_seeds,
        }


def largest_difference(losses: Sequence[Sequence[float]]) -> float:
    """Return the largest difference of two series; infinity where a loss is not finite."""
    differences = [abs(ours - theirs) for ours, theirs in zip(*losses, strict=True)]
    return max(differences) if all(map(math.isfinite, differences)) else math.inf


def half_interval(values: Sequence[float]) -> float | None:
    """Return half the 95 % interval of the mean of two or three values; None of another number."""
    freedom = len(values) - 1
    return _STUDENT[freedom] * statistics.stdev(values) / len(values) ** 0.5 if freedom in _STUDENT else None


def episode_interval(accuracies: Sequence[Sequence[float]]) -> float:
    """Return half the 95 % interval of the paired difference over test episodes."""
    differences = [ours - theirs for ours, theirs in zip(*accuracies, strict=True)]
    return 1.96 * statistics.stdev(differences) / len(differences) ** 0.5


def render(agreement: Agreement) -> str:
    """Return the figures as text."""
    exact, rounded = agreement.float64_difference, agreement.float32_difference
    lines = [
        f"{agreement.method}: metabench and {agreement.peer}",
        f"first {len(agreement.exact[0])} losses in float64 differ by at most {exact:.1e} "
        f"({_verdict(exact <= FLOAT64_TOLERANCE)}, {FLOAT64_TOLERANCE:g})",
        f"first {FLOAT32_LOSSES} losses in float32 differ by at most {rounded:.1e} "
        f"({_verdict(rounded <= FLOAT32_TOLERANCE)}, {FLOAT32_TOLERANCE:g})",
        f"seed  metabench  {agreement.peer:>11}  difference",
    ]
    for seed, (ours, theirs) in agreement.accuracies.items():
        half = episode_interval(agreement.trainings[seed]["accuracies"])
        lines.append(
            f"{seed:>4}  {100 * ours:>9.2f}  {100 * theirs:>11.2f}  {100 * (ours - theirs):+.2f} ± {100 * half:.2f}"
        )
    if agreement.between_seeds is not None:
        mean = statistics.fmean(ours - theirs for ours, theirs in agreement.accuracies.values())
        lines.append(
            f"mean difference {100 * mean:+.2f}, and ± {100 * agreement.between_seeds:.2f} between metabench's seeds "
            f"({_verdict(abs(mean) <= agreement.between_seeds)})"
        )
    return "\n".join(lines)


def _means(accuracies: Sequence[Sequence[float]]) -> tuple[float, float]:
    ours, theirs = (statistics.fmean(side) for side in accuracies)
    return ours, theirs


def _verdict(holds: bool) -> str:
    return "inside" if holds else "OUTSIDE"
