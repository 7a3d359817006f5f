"""One policy for all tasks, trained by PPO (Schulman et al. 2017), which adapts as MAML does.

Finn et al. 2017 (section 5.3) compare MAML with it: a policy trained on all tasks, then fine-tuned.
"""

from __future__ import annotations

from torch import optim

from metabench_rl.algorithms.gradient import GradientAdaptation
from metabench_rl.api import Collect, Setup, Tasks
from metabench_rl.configs import PretrainedConfig
from metabench_rl.objectives import clipped_surrogate, descend


class Pretrained(GradientAdaptation):
    """Trains one policy on all tasks without adaptation."""

    config: PretrainedConfig

    def __init__(self, config: PretrainedConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.tasks_per_update = config.tasks
        self.episodes_per_task = config.episodes_per_task
        self.optimiser = optim.Adam(self.parameters(), lr=config.lr)

    def update(self, tasks: Tasks, collect: Collect) -> float:
        """See `metabench_rl.api.Algorithm.update`."""
        episodes = collect(self.policy(tasks), self.episodes_per_task)
        advantage = self.advantages(episodes)
        for _ in range(self.config.epochs):
            log_probs = self.policy(tasks).log_probs(episodes.observations, episodes.actions)
            loss = clipped_surrogate(log_probs, advantage, episodes, self.config.clip).mean()
            descend(loss, self, self.config.max_grad_norm)
        return episodes.mean_return
