"""ML1 of Meta-World, where it is installed."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("metaworld", reason="Meta-World is not installed: pip install 'metabench-rl[metaworld]'")

from cells_for_tests import cell

from metabench.jobs import CellFailed
from metabench_rl.api import Act, Algorithm, Seen, Setup, Tasks
from metabench_rl.drawing import training_numbers
from metabench_rl.environments.metaworld import ML1, Expert
from metabench_rl.environments.names import ENVIRONMENTS
from metabench_rl.simulator import Rollouts, Simulator
from metabench_rl.testing import test as run_test


class SolvesEven(Algorithm):
    """Acts as the expert on even tasks, and rests on the others."""

    sees_goals = True

    def policy(self, tasks: Tasks) -> Resting:
        return Resting(self.setup.family.expert(tasks), torch.tensor([number % 2 for number in tasks.numbers]))


class Resting:
    memory = None

    def __init__(self, expert: Expert, rests: torch.Tensor) -> None:
        self._expert, self._moves = expert, (1.0 - rests).view(-1, 1, 1)

    def act(self, seen: Seen, memory: None) -> Act:
        act = self._expert.act(seen, memory)
        return act._replace(mean=act.mean * self._moves)


def test_no_test_goal_occurs_in_training_and_there_are_as_many_as_asked() -> None:
    family = ML1("reach-v3", 10)
    drawn = [number for update in range(6) for number in training_numbers("train|0", update, 10, None)]
    splits = [
        family.tasks("train", drawn).goals,
        *(family.tasks(split, range(60)).goals for split in ("validation", "test")),
    ]
    goals = torch.cat(splits)
    assert len(torch.unique(goals, dim=0)) == 180
    assert torch.equal(splits[2][[5, 50]], family.tasks("test", [5, 50]).goals)


def test_the_expert_succeeds_with_a_goal_that_no_observation_shows() -> None:
    family = ML1("reach-v3", 100)
    tasks = family.tasks("test", range(3))
    rolled = [Rollouts(Simulator(family), tasks, "expert")(family.expert(tasks), 1) for _ in range(2)]
    assert rolled[0].success.all()
    assert not rolled[0].observations[..., -3:].any()
    assert torch.equal(rolled[0].observations, rolled[1].observations)


def test_the_names_of_environments_are_those_of_meta_world() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert {f"{name}-v3" for name in ENVIRONMENTS} == set(ALL_V3_ENVIRONMENTS)


def test_an_observation_that_shows_the_goal_fails_the_cell() -> None:
    family = ML1("reach-v3", 5)
    robots = family.environment(family.tasks("test", [0]), 1)
    robots.simulators[0]._partially_observable = False
    with pytest.raises(CellFailed, match="shows the goal"):
        robots.reset()


def test_a_policy_that_solves_k_of_10_goals_is_scored_k_of_10_without_an_early_finish() -> None:
    ten = cell("scripted", tasks={"point2d": {"horizon": 100, "test": 4}}, eval={"episodes": 1}, adapt={"rounds": 1})
    family = ML1("reach-v3", 100)
    some = SolvesEven(ten.params, Setup(family, 1, 1))
    simulator = Simulator(family)
    figures = run_test(some, simulator, ten, lambda done, total: None).figures
    assert figures["success", 1].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert simulator.steps == 2 * 4 * 100


@pytest.mark.parametrize(
    ("name", "horizon", "message"), [("rech-v3", None, "no environment"), ("reach-v3", 501, "longer")]
)
def test_an_unknown_environment_and_a_long_horizon_fail_the_cell(name: str, horizon: int | None, message: str) -> None:
    with pytest.raises(CellFailed, match=message):
        ML1(name, horizon)
