"""MAML for reinforcement learning (Finn et al. 2017, algorithm 3), with PPO in the outer loop.

The paper's outer loop is TRPO; PPO as a MAML outer loop is that of Rothfuss et al. 2019 (section 7).
"""

from __future__ import annotations

from torch import optim

from metabench_rl.algorithms.gradient import GradientAdaptation
from metabench_rl.api import Collect, Setup, Tasks
from metabench_rl.configs import MAMLConfig
from metabench_rl.objectives import clipped_surrogate, descend


class MAML(GradientAdaptation):
    """Trains weights from which one policy-gradient step on a task's own episodes gives a good policy."""

    config: MAMLConfig

    def __init__(self, config: MAMLConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.tasks_per_update = config.tasks
        self.episodes_per_task = config.episodes_per_task
        self.optimiser = optim.Adam(self.parameters(), lr=config.lr)

    def update(self, tasks: Tasks, collect: Collect) -> float:
        """See `metabench_rl.api.Algorithm.update`."""
        config = self.config
        before = collect(self.policy(tasks), config.episodes)
        of_before = self.advantages(before)
        after = collect(self.step(self.policy(tasks), before, of_before, config.inner_lr), config.episodes)
        of_after = self.advantages(after)
        for _ in range(config.epochs):
            # From the current weights, through the step, to the episodes after it.
            adapted = self.step(self.policy(tasks), before, of_before, config.inner_lr, differentiable=True)
            log_probs = adapted.log_probs(after.observations, after.actions)
            loss = clipped_surrogate(log_probs, of_after, after, config.clip).mean()
            descend(loss, self, config.max_grad_norm)
        return after.mean_return
