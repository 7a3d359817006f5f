"""Budgets of training and adaptation, counted by the simulator."""

from __future__ import annotations

from pathlib import Path

import pytest
from cells_for_tests import Quiet, cell, untrained

from metabench.jobs import CellFailed
from metabench_rl.api import Collect, Policy
from metabench_rl.simulator import Simulator
from metabench_rl.testing import test as run_test
from metabench_rl.training import train


@pytest.mark.parametrize("name", ["maml-ppo", "pretrained", "rl2"])
def test_a_training_spends_its_budget_validations_included_and_no_more(name: str, tmp_path: Path) -> None:
    small = cell(name)
    algorithm, simulator = untrained(small), Simulator(untrained(small).setup.family)
    progress = train(algorithm, simulator, small, {}, tmp_path / "checkpoint.pt", Quiet())
    assert progress.steps == simulator.steps <= small.train.env_steps
    assert progress.steps > 0.85 * small.train.env_steps
    assert [update for update, _ in progress.curve] == [round(progress.updates / 2), progress.updates]


def test_validations_leave_fewer_updates() -> None:
    several, none = (cell("maml-ppo", train={"validations": count}) for count in (4, 0))
    assert 0 < several.updates < none.updates == 3_000 // (4 * 6 * 10)


def test_trials_of_rl2_count_all_their_episodes() -> None:
    assert cell("rl2", train={"validations": 0}).updates == 3_000 // (4 * 2 * 3 * 10)


@pytest.mark.parametrize("more", [0, 1])
def test_a_round_of_adaptation_gives_no_more_episodes_than_allowed(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small = cell("random")
    algorithm = untrained(small)

    def greedy_for_episodes(policy: Policy, collect: Collect, done: int) -> Policy:
        collect(policy, small.adapt.episodes - 1)
        collect(policy, 1 + more)
        return policy

    monkeypatch.setattr(algorithm, "adapt", greedy_for_episodes)
    simulator = Simulator(algorithm.setup.family)
    if more:
        with pytest.raises(CellFailed, match="asks for 4 episodes of a task in this phase, which allows 3"):
            run_test(algorithm, simulator, small, lambda done, total: None)
    else:
        run_test(algorithm, simulator, small, lambda done, total: None)
        assert simulator.steps <= small.tasks.test * (2 * 3 + 3 * 2) * 10
