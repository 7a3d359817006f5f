"""Each method against its paper, and golden numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from cells_for_tests import cell, untrained

from metabench_rl.advantages import advantages
from metabench_rl.algorithms.maml_ppo import MAML
from metabench_rl.algorithms.rl2 import RL2, _inputs
from metabench_rl.api import Algorithm, Trajectories
from metabench_rl.networks import WeightedPolicy, log_prob
from metabench_rl.simulator import Rollouts, Simulator

#: Mean return in the third update, and sum of absolute weights after it, with 4 tasks and 3 episodes of 10 steps.
GOLDEN = {
    "maml-ppo": (-3.694811, 32.992097),
    "pretrained": (-3.750923, 33.008560),
    "rl2": (-7.795637, 68.928677),
}


def collected(algorithm: Algorithm, tasks: int = 3, episodes: int = 4) -> Trajectories:
    family = algorithm.setup.family
    drawn = family.tasks("train", range(tasks))
    return Rollouts(Simulator(family), drawn, "some")(algorithm.policy(drawn), episodes)


def test_the_inner_step_is_a_step_of_reinforce_on_the_episodes_of_each_task() -> None:
    maml = untrained(cell("maml-ppo"))
    assert isinstance(maml, MAML)
    before = collected(maml)
    advantage = maml.advantages(before)
    tasks = maml.setup.family.tasks("train", range(3))
    stepped = maml.step(maml.policy(tasks), before, advantage, 0.5)
    for task in range(3):
        alone = copy.deepcopy(maml)
        optimiser = torch.optim.SGD(alone.parameters(), lr=0.5)
        policy = alone.policy(alone.setup.family.tasks("train", [task]))
        log_probs = policy.log_probs(before.observations[[task]], before.actions[[task]])
        alive = before.alive[[task]]
        (-(log_probs * advantage[[task]] * alive).sum() / alive.sum()).backward()
        optimiser.step()
        for name, weight in alone.network.named_parameters():
            torch.testing.assert_close(stepped.weights[name][task], weight.detach(), atol=1e-6, rtol=1e-5)


def test_mamls_gradient_passes_through_the_inner_step() -> None:
    slopes = []
    for differentiable in (True, False):
        maml = untrained(cell("maml-ppo"))
        assert isinstance(maml, MAML)
        before, tasks = collected(maml), maml.setup.family.tasks("train", range(3))
        adapted = maml.step(maml.policy(tasks), before, maml.advantages(before), 0.5, differentiable)
        adapted.log_probs(before.observations, before.actions).mean().backward()
        slopes.append(maml.network.matrices[1].grad)
    assert not torch.allclose(slopes[0], slopes[1])


def test_the_second_round_has_the_later_rate() -> None:
    random = untrained(cell("random"))
    tasks = random.setup.family.tasks("test", range(2))
    start = random.policy(tasks)
    moved = []
    for done in (0, 1):
        collect = Rollouts(Simulator(random.setup.family), tasks, "same noise", allowed=3)
        adapted = random.adapt(start, collect, done)
        assert isinstance(adapted, WeightedPolicy)
        moved.append(adapted.weights["matrices.2"] - start.weights["matrices.2"])
    torch.testing.assert_close(moved[0], 2 * moved[1])


def test_advantages_are_normalised_over_the_steps_of_each_task() -> None:
    random = untrained(cell("random"))
    episodes = collected(random)
    found = advantages(episodes, 0.99, 1.0)
    steps = episodes.alive.sum(dim=(1, 2))
    torch.testing.assert_close((found * episodes.alive).sum(dim=(1, 2)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.square().sum(dim=(1, 2)) / steps, torch.ones(3), atol=1e-4, rtol=0)


def test_whole_returns_without_a_baseline_are_advantages_of_lambda_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "metabench_rl.advantages._baseline", lambda observations, returns, alive: torch.zeros_like(returns)
    )
    rewards = torch.tensor([[[1.0, 2.0, 4.0]]])
    one = torch.ones(1, 1, 3)
    episodes = Trajectories(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2), rewards, one, one, torch.zeros(1, 1))
    returns = torch.tensor([1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4.0])
    expected = (returns - returns.mean()) / returns.std(correction=0)
    torch.testing.assert_close(advantages(episodes, 0.5, 1.0)[0, 0], expected)


def test_rl2_sees_along_a_trial_what_it_saw_when_it_acted() -> None:
    rl2 = untrained(cell("rl2"))
    assert isinstance(rl2, RL2)
    family = rl2.setup.family
    tasks = family.tasks("train", range(3))
    collect, policy = Rollouts(Simulator(family), tasks, "trial"), rl2.policy(tasks)
    first = collect(policy, 4)
    second = collect(type(policy)(rl2.network, first.memory), 4)
    inputs = torch.cat([_inputs(first), _inputs(second)], dim=2).flatten(0, 1)
    mean, log_std, _ = rl2.network(inputs, torch.zeros(12, 8))
    actions = torch.cat([first.actions, second.actions], dim=2)
    log_probs = log_prob(actions, mean.view_as(actions), log_std)
    torch.testing.assert_close(log_probs, torch.cat([first.log_probs, second.log_probs], dim=2), atol=1e-5, rtol=1e-5)
    assert not torch.equal(first.memory, second.memory)


def test_rl2_adapts_from_the_episodes_of_a_trial_alone() -> None:
    rl2 = untrained(cell("rl2"))
    family = rl2.setup.family
    tasks = family.tasks("test", range(3))
    collect = Rollouts(Simulator(family), tasks, "rounds", allowed=3)
    once = rl2.adapt(rl2.policy(tasks), collect, 0)
    assert collect.collected == 1
    assert rl2.adapt(once, collect, 1) is once


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name: str) -> None:
    algorithm = untrained(cell(name))
    family = algorithm.setup.family
    tasks = family.tasks("train", range(4))
    returns = [algorithm.update(tasks, Rollouts(Simulator(family), tasks, f"update {u}")) for u in range(3)]
    total = sum(float(weight.detach().double().abs().sum()) for weight in algorithm.parameters())
    assert (returns[-1], total) == pytest.approx(GOLDEN[name], rel=1e-4)
