"""Adaptation by policy-gradient steps on the weights, which several algorithms share."""

from __future__ import annotations

import torch
from torch import Tensor

from metabench_rl.advantages import advantages
from metabench_rl.api import Algorithm, Collect, Policy, Setup, Tasks, Trajectories
from metabench_rl.configs import GradientConfig
from metabench_rl.networks import Perceptron, WeightedPolicy
from metabench_rl.objectives import surrogate


class GradientAdaptation(Algorithm):
    """A perceptron that adapts to a task by a step of REINFORCE in each round."""

    config: GradientConfig

    def __init__(self, config: GradientConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        size = setup.family.size
        self.network = Perceptron(size.observation, size.action, config.hidden, config.init_std, config.tanh)

    def policy(self, tasks: Tasks) -> WeightedPolicy:
        """See `Algorithm.policy`."""
        return WeightedPolicy(self.network, self.network.weights(len(tasks.numbers)))

    def adapt(self, policy: Policy, collect: Collect, done: int) -> Policy:
        """See `Algorithm.adapt`."""
        assert isinstance(policy, WeightedPolicy)
        before = collect(policy, self.setup.episodes)
        rate = self.config.later_inner_lr if done else self.config.inner_lr
        adapted = self.step(policy, before, self.advantages(before), rate)
        return WeightedPolicy(self.network, {name: weight.detach() for name, weight in adapted.weights.items()})

    def advantages(self, trajectories: Trajectories) -> Tensor:
        """Return the [B, T, H] advantages."""
        return advantages(trajectories, self.config.discount, self.config.gae_lambda)

    @torch.enable_grad()
    def step(
        self, policy: WeightedPolicy, before: Trajectories, advantage: Tensor, rate: float, differentiable: bool = False
    ) -> WeightedPolicy:
        """Return the policies after a gradient step on the episodes of their own task.

        Args:
            policy: the policies of B tasks.
            before: their episodes.
            advantage: [B, T, H] advantages of these.
            rate: the learning rate.
            differentiable: whether gradients pass through the step.
        """
        weights = {name: w if w.requires_grad else w.requires_grad_() for name, w in policy.weights.items()}
        acting = WeightedPolicy(policy.network, weights)
        # Tasks do not share weights here, so that the gradient of the sum has each task's own.
        loss = surrogate(acting.log_probs(before.observations, before.actions), advantage, before).sum()
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=differentiable)
        stepped = {name: w - rate * slope for (name, w), slope in zip(weights.items(), slopes, strict=True)}
        return WeightedPolicy(policy.network, stepped)
