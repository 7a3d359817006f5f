"""2-D navigation, its goals and its noise."""

from __future__ import annotations

import pytest
import torch

from metabench_rl.api import Act, Seen
from metabench_rl.drawing import noise, training_numbers
from metabench_rl.environments.point2d import Point2D
from metabench_rl.simulator import Rollouts, Simulator


class Constant:
    """Always the same action."""

    memory = None

    def __init__(self, *action: float) -> None:
        self._action = torch.tensor(action)

    def act(self, seen: Seen, memory: None) -> Act:
        return Act(self._action.expand_as(seen.action), torch.full((2,), -20.0))


def test_a_task_is_a_function_of_its_number_and_no_test_goal_occurs_in_training() -> None:
    family = Point2D()
    test, train = family.tasks("test", range(200)), family.tasks("train", range(2_000))
    assert torch.equal(test.goals[[7, 3]], family.tasks("test", [7, 3]).goals)
    assert test.goals.abs().max() <= 0.5
    assert test.goals.mean(dim=0).abs().max() < 0.06
    assert torch.cdist(test.goals, train.goals).min() > 0


def test_the_expert_reaches_every_goal_and_rewards_are_negative_distances() -> None:
    family = Point2D(horizon=20)
    tasks, simulator = family.tasks("test", range(50)), Simulator(family)
    episodes = Rollouts(simulator, tasks, "expert")(family.expert(tasks), 2)
    assert episodes.success.all()
    moved = (tasks.goals.clamp(-0.1, 0.1) - tasks.goals).norm(dim=-1)
    torch.testing.assert_close(-episodes.rewards[:, 0, 0], moved, atol=1e-5, rtol=0)
    assert simulator.steps == int(episodes.alive.sum()) < 50 * 2 * 7


def test_an_episode_ends_at_its_goal_and_makes_no_more_steps_or_rewards() -> None:
    family = Point2D(horizon=20)
    tasks = family.tasks("test", [0])
    episodes = Rollouts(Simulator(family), tasks, "expert")(family.expert(tasks), 1)
    last = int(episodes.alive.sum())
    assert episodes.alive[0, 0, :last].all()
    assert not episodes.rewards[0, 0, last:].any()


def test_observations_do_not_depend_on_the_goal() -> None:
    family = Point2D(horizon=5)
    tasks = family.tasks("test", range(8))
    episodes = Rollouts(Simulator(family), tasks, "noise")(Constant(1.0, -0.5), 1)
    assert (episodes.observations == episodes.observations[:1]).all()
    assert len(episodes.rewards[:, 0, 0].unique()) == 8


def test_actions_beyond_one_are_clipped() -> None:
    family = Point2D(horizon=2)
    episodes = Rollouts(Simulator(family), family.tasks("test", [1]), "noise")(Constant(9.0, -0.5), 1)
    torch.testing.assert_close(episodes.observations[0, 0, 1], torch.tensor([0.1, -0.05]))


def test_noise_is_a_function_of_phase_and_task_whatever_is_drawn_beside_it() -> None:
    many = noise("phase", [4, 9, 2], 6, 5, 2)
    assert torch.equal(many[1, :3], noise("phase", [9], 3, 5, 2)[0])
    assert not torch.equal(many, noise("another phase", [4, 9, 2], 6, 5, 2))
    assert abs(float(noise("phase", range(50), 10, 20, 2).std()) - 1) < 0.02


def test_training_tasks_are_a_function_of_seed_and_update_and_differ_within_an_update() -> None:
    assert training_numbers("train|0", 5, 20, 20) == training_numbers("train|0", 5, 20, 20)
    assert sorted(training_numbers("train|0", 5, 20, 20)) == list(range(20))
    assert training_numbers("train|0", 5, 20, None) != training_numbers("train|1", 5, 20, None)


@pytest.mark.parametrize("greedy", [False, True])
def test_a_rollout_is_the_same_again_bit_by_bit(greedy: bool) -> None:
    family = Point2D()
    tasks = family.tasks("test", range(5))
    rolled = [Rollouts(Simulator(family), tasks, "again", greedy)(family.expert(tasks), 3) for _ in range(2)]
    assert torch.equal(rolled[0].observations, rolled[1].observations)
    assert torch.equal(rolled[0].rewards, rolled[1].rewards)
