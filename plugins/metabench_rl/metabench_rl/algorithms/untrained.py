"""The floor: an untrained policy, which adapts as MAML does."""

from __future__ import annotations

from metabench_rl.algorithms.gradient import GradientAdaptation


class Untrained(GradientAdaptation):
    """Random weights with steps of adaptation (Finn et al. 2017, figure 4, "random")."""

    trains = False
