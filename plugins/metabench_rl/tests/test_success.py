"""Success is counted over all goals and episodes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from cells_for_tests import cell, untrained

from metabench.jobs import CellFailed
from metabench_rl.api import Act, Algorithm, Policy, Seen, Tasks
from metabench_rl.environments.point2d import Point2D, Straight
from metabench_rl.simulator import Simulator
from metabench_rl.testing import test as run_test


class Reached(Point2D):
    """2-D navigation, ranked by success."""

    metrics: Sequence[str] = ("success", "return")  # type: ignore[assignment]
    at_once = 4


class SolvesSome(Algorithm):
    """Goes straight to the first k goals, and away from the others."""

    sees_goals = True
    solved: int

    def policy(self, tasks: Tasks) -> Policy:
        towards = torch.tensor([1.0 if number < self.solved else -1.0 for number in tasks.numbers])
        return Straight(tasks.goals * towards.unsqueeze(1))


@pytest.mark.parametrize("solved", [0, 1, 3, 10])
def test_a_policy_that_solves_k_of_10_goals_is_scored_k_of_10(solved: int) -> None:
    ten = cell("scripted", tasks={"point2d": {"horizon": 20, "test": 10}}, eval={"episodes": 3})
    some = SolvesSome(ten.params, untrained(ten).setup)
    some.solved = solved
    figures = run_test(some, Simulator(Reached(horizon=20)), ten, lambda done, total: None).figures
    for number in range(3):
        assert figures["success", number].tolist() == [1.0] * solved + [0.0] * (10 - solved)


def test_success_at_any_step_counts_and_is_not_lost_later() -> None:
    class Passes:
        """Goes to (0.1, 0), and back."""

        memory = None

        def act(self, seen: Seen, memory: None) -> Act:
            back = seen.observation[..., :1] > 0.05
            mean = torch.where(back, -1.0, 1.0) * torch.tensor([1.0, 0.0])
            return Act(mean, torch.full((2,), -20.0))

    family = Reached(horizon=6)
    tasks = Tasks("test", [0, 1], torch.tensor([[0.1, 0.0], [0.3, 0.3]]))
    episodes = Simulator(family).rollout(Passes(), tasks, torch.zeros(2, 3, 6, 2))
    assert episodes.measured("success").tolist() == [1.0, 0.0]


class Diverged(Algorithm):
    """Has a policy whose actions are no numbers."""

    sees_goals = True

    def policy(self, tasks: Tasks) -> Policy:
        return Straight(tasks.goals * float("nan"))


def test_a_diverged_policy_fails_the_cell_and_says_where() -> None:
    ten = cell("scripted", tasks={"point2d": {"horizon": 20, "test": 10}}, eval={"episodes": 3})
    diverged = Diverged(ten.params, untrained(ten).setup)
    with pytest.raises(CellFailed, match="the return of test task 0 before any adaptation is no number: lower"):
        run_test(diverged, Simulator(Reached(horizon=20)), ten, lambda done, total: None)


class Spy(Algorithm):
    """Looks for goals."""

    seen: list[torch.Tensor]

    def policy(self, tasks: Tasks) -> Policy:
        self.seen.append(tasks.goals)
        return Straight(torch.zeros(len(tasks.numbers), 2))


def test_a_method_that_is_no_oracle_is_given_no_goals() -> None:
    ten = cell("scripted", tasks={"point2d": {"horizon": 20, "test": 10}}, eval={"episodes": 3})
    spy = Spy(ten.params, untrained(ten).setup)
    spy.seen = []
    run_test(spy, Simulator(Reached(horizon=20)), ten, lambda done, total: None)
    assert sum(map(len, spy.seen)) == 10
    assert not any(goals.numel() for goals in spy.seen)
