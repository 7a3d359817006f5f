"""RL² (Duan et al. 2016, https://arxiv.org/abs/1611.02779): a recurrent policy that learns by its memory.

The paper trains by TRPO; this is PPO, and the baseline is linear.
"""

from __future__ import annotations

import torch
from torch import Tensor, optim

from metabench_rl.advantages import advantages
from metabench_rl.api import Algorithm, Collect, Policy, Setup, Tasks, Trajectories
from metabench_rl.configs import RL2Config
from metabench_rl.networks import Recurrent, RecurrentPolicy, log_prob
from metabench_rl.objectives import clipped_surrogate, descend


class RL2(Algorithm):
    """Adapts by going on with its memory: an episode of a trial sees those before it."""

    config: RL2Config

    def __init__(self, config: RL2Config, setup: Setup) -> None:
        super().__init__(config, setup)
        size = setup.family.size
        self.network = Recurrent(size.observation, size.action, config.hidden, config.init_std)
        self.tasks_per_update = config.tasks
        self.episodes_per_task = config.episodes_per_task
        self.optimiser = optim.Adam(self.parameters(), lr=config.lr)

    def policy(self, tasks: Tasks) -> RecurrentPolicy:
        """See `metabench_rl.api.Algorithm.policy`."""
        return RecurrentPolicy(self.network, torch.zeros(len(tasks.numbers), 1, self.config.hidden))

    def adapt(self, policy: Policy, collect: Collect, done: int) -> Policy:
        """Take the episodes of a trial but the last one into the memory, which knows no longer trials."""
        assert isinstance(policy, RecurrentPolicy)
        left = self.config.trial - 1 - done * self.setup.episodes
        for _ in range(min(left, self.setup.episodes)):
            policy = RecurrentPolicy(self.network, collect(policy, 1).memory)
        return policy

    def update(self, tasks: Tasks, collect: Collect) -> float:
        """See `metabench_rl.api.Algorithm.update`."""
        policy, episodes = self.policy(tasks), []
        for _ in range(self.config.trial):
            episodes.append(collect(policy, self.config.episodes))
            policy = RecurrentPolicy(self.network, episodes[-1].memory)
        trials = _joined(episodes)
        inputs = torch.cat([_inputs(one) for one in episodes], dim=2).flatten(0, 1)
        advantage = advantages(trials, self.config.discount, self.config.gae_lambda)
        for _ in range(self.config.epochs):
            mean, log_std, _ = self.network(inputs, torch.zeros(len(inputs), self.config.hidden))
            log_probs = log_prob(trials.actions, mean.view_as(trials.actions), log_std)
            loss = clipped_surrogate(log_probs, advantage, trials, self.config.clip).mean()
            loss = loss - self.config.entropy * log_std.sum()
            descend(loss, self, self.config.max_grad_norm)
        return trials.mean_return


def _inputs(episodes: Trajectories) -> Tensor:
    """Return the [B, T, H, O + A + 2] inputs of the network, as `RecurrentPolicy.act` makes them."""

    def before(x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], dim=2)

    first = torch.zeros_like(episodes.rewards)
    first[..., 0] = 1.0
    last_reward = before(episodes.rewards).unsqueeze(-1)
    return torch.cat([episodes.observations, before(episodes.actions), last_reward, first.unsqueeze(-1)], dim=-1)


def _joined(episodes: list[Trajectories]) -> Trajectories:
    """Return trials, whose episodes follow one another."""

    def along_time(name: str) -> Tensor:
        return torch.cat([getattr(one, name) for one in episodes], dim=2)

    names = ("observations", "actions", "rewards", "log_probs", "alive")
    return Trajectories(**{name: along_time(name) for name in names}, success=episodes[-1].success)
