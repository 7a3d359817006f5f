"""The oracle: the family's own expert, which knows the goals."""

from __future__ import annotations

from metabench_rl.api import Algorithm, Policy, Tasks


class Scripted(Algorithm):
    """Acts as the expert of the task family."""

    trains = False
    sees_goals = True

    def policy(self, tasks: Tasks) -> Policy:
        """See `metabench_rl.api.Algorithm.policy`."""
        return self.setup.family.expert(tasks)
