"""Rolls policies out, and counts every step of every environment."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metabench.jobs import CellFailed
from metabench_rl.api import Act, Policy, Seen, TaskFamily, Tasks, Trajectories
from metabench_rl.drawing import noise
from metabench_rl.networks import log_prob


@dataclass
class Simulator:
    """The only way to an environment.

    Attributes:
        family: the task family.
        steps: number of environment steps so far; an episode that has ended makes none.
        seconds: seconds within environments so far.
        action_seconds: seconds in which a policy chose its actions, of each step of all tasks at once; for the latency.
    """

    family: TaskFamily
    steps: int = 0
    seconds: float = 0.0
    action_seconds: list[float] = field(default_factory=list)

    @torch.no_grad()
    def rollout(self, policy: Policy, tasks: Tasks, draws: Tensor) -> Trajectories:
        """Return episodes of each task.

        Args:
            policy: the policies of the tasks.
            tasks: the B tasks.
            draws: [B, T, H, A] normal numbers, times the standard deviations of the actions; zeros act greedily.
        """
        size, (b, t, horizon, _) = self.family.size, draws.shape
        begun = time.perf_counter()
        environment = self.family.environment(tasks, t)
        observation, memory = environment.reset(), policy.memory
        self.seconds += time.perf_counter() - begun
        observations = torch.empty(b, t, horizon, size.observation)
        actions = torch.empty(b, t, horizon, size.action)
        rewards, log_probs, alive = (torch.zeros(b, t, horizon) for _ in range(3))
        action, reward = torch.zeros(b, t, size.action), torch.zeros(b, t)
        ended, success = (torch.zeros(b, t, dtype=torch.bool) for _ in range(2))
        for step in range(horizon):
            begun = time.perf_counter()
            act: Act = policy.act(Seen(observation, action, reward, step == 0), memory)
            memory = act.memory
            action = act.mean + act.log_std.exp() * draws[:, :, step]
            chosen = time.perf_counter()
            self.action_seconds.append(chosen - begun)
            observations[:, :, step], actions[:, :, step] = observation, action
            log_probs[:, :, step] = log_prob(action, act.mean, act.log_std)
            alive[:, :, step] = ~ended
            begun = time.perf_counter()
            after = environment.step(action)
            self.seconds += time.perf_counter() - begun
            reward = torch.where(ended, 0.0, after.reward)
            rewards[:, :, step] = reward
            success |= after.success & ~ended
            observation, ended = after.observation, after.ended
        self.steps += int(alive.sum())
        return Trajectories(observations, actions, rewards, log_probs, alive, success, memory)


@dataclass
class Rollouts:
    """Collects episodes of some tasks under noise of their own; `metabench_rl.api.Collect`.

    Attributes:
        simulator: counts the steps.
        tasks: the tasks.
        key: names the phase, of which every call has noise of its own.
        greedy: whether actions are the means of their distributions.
        allowed: episodes of each task that may be collected; None for any number.
        collected: episodes of each task so far.
    """

    simulator: Simulator
    tasks: Tasks
    key: str
    greedy: bool = False
    allowed: int | None = None
    collected: int = 0

    def __call__(self, policy: Policy, episodes: int) -> Trajectories:
        """See `metabench_rl.api.Collect`."""
        size = self.simulator.family.size
        if self.allowed is not None and self.collected + episodes > self.allowed:
            raise CellFailed(
                f"the algorithm asks for {self.collected + episodes} episodes of a task in this phase, which allows "
                f"{self.allowed} (in a test, adapt.episodes)"
            )
        shape = (len(self.tasks.numbers), episodes, size.horizon, size.action)
        if self.greedy:
            draws = torch.zeros(shape)
        else:
            draws = noise(f"{self.key}|{self.collected}", self.tasks.numbers, episodes, size.horizon, size.action)
        self.collected += episodes
        return self.simulator.rollout(policy, self.tasks, draws)
