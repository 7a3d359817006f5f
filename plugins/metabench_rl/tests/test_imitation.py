"""Few-shot imitation on Meta-World, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

pytest.importorskip("metaworld", reason="Meta-World is not installed: pip install 'metabench-rl[metaworld]'")

from metabench.api import DataError, Pack, SourceSplit
from metabench.testing import EpisodeSourceChecks
from metabench_rl.api import Seen
from metabench_rl.environments.metaworld import ML1
from metabench_rl.imitation.config import DemonstrationsConfig
from metabench_rl.imitation.demonstrations import Demonstrations, tasks_of
from metabench_rl.imitation.source import DemonstratedTasks

SMALL: dict[str, Any] = {"horizon": 80, "demonstrations": 3, "train": 3, "validation": 2, "test": 4}
#: Place of the hand in an observation.
_HAND = slice(0, 3)


class TestDemonstrations(EpisodeSourceChecks):
    source = "metaworld"
    params = SMALL


def packed(dataset: Demonstrations) -> Pack:
    """Return the demonstrations of a dataset."""
    classes = list(dataset.pack(Files(), lambda done, total, what: None))
    offsets = np.cumsum([0, *(len(one.images) for one in classes)])
    return Pack(np.concatenate([one.images for one in classes]), offsets, tuple(one.name for one in classes))


class Files:
    sources: tuple[Path, ...] = ()
    cache = Path()
    download = False


@pytest.fixture(scope="module")
def pack() -> Pack:
    return packed(Demonstrations(DemonstrationsConfig(**SMALL)))


@pytest.fixture(scope="module")
def source(pack: Pack) -> DemonstratedTasks:
    splits = Demonstrations(DemonstrationsConfig(**SMALL)).split(pack)
    assert all(isinstance(split, SourceSplit) for split in splits.values())
    found = splits["test"].source
    assert isinstance(found, DemonstratedTasks)
    return found


def rows(source: DemonstratedTasks, split: str) -> Tensor:
    """Return a row of numbers for each task of a split."""
    count = source.tasks(split)
    first = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return torch.stack([first, torch.zeros(count), torch.full((count,), 0.9)], dim=1)


def goals(source: DemonstratedTasks, split: str) -> Tensor:
    """Return the goals of the tasks of a split: the last three of the numbers that make a task."""
    numbers = [task.number for task in source.named(rows(source, split), split)]
    return tasks_of(ML1("reach-v3", 80), split, numbers).goals


def test_no_test_goal_occurs_in_training(source: DemonstratedTasks) -> None:
    drawn = torch.cat([goals(source, split) for split in ("train", "val", "test")])
    assert len(torch.unique(drawn[:, -3:], dim=0)) == 3 + 2 + 4


def test_demonstrations_end_at_the_goal_that_no_observation_shows(source: DemonstratedTasks) -> None:
    for split in ("train", "val", "test"):
        shown = source.episodes(rows(source, split), split, 1, 1)
        assert not shown.support_x[..., -3:].any()
        assert not shown.query_x[..., -3:].any()
        ends = torch.stack([shown.support_x[:, -1, _HAND], shown.query_x[:, -1, _HAND]])
        assert (ends - goals(source, split)[:, -3:]).norm(dim=-1).max() < 0.08


def test_support_and_queries_are_different_demonstrations_of_one_task(source: DemonstratedTasks) -> None:
    shown = source.episodes(rows(source, "train"), "train", 1, 1)
    assert shown.support_x.shape == (3, 80, 39)
    assert shown.support_y.shape == (3, 80, 4)
    assert torch.equal(shown.support_x[:, 0], shown.query_x[:, 0])
    assert not torch.equal(shown.support_x[:, 1:], shown.query_x[:, 1:])
    assert shown.support_y.abs().max() <= 1


def test_demonstrations_are_the_same_again(pack: Pack) -> None:
    assert packed(Demonstrations(DemonstrationsConfig(**SMALL))).fingerprint == pack.fingerprint


def test_a_task_does_not_depend_on_the_number_of_others(pack: Pack) -> None:
    fewer = packed(Demonstrations(DemonstrationsConfig(**{**SMALL, "train": 1, "validation": 1, "test": 1})))
    for name, content in ((one.name, one.images) for one in fewer.classes()):
        (same,) = [one.images for one in pack.classes() if one.name == name]
        assert np.array_equal(same, content)


class Demonstrator:
    """Answers as the expert in tasks of even places, and rests in the others; counts the answers."""

    def __init__(self, source: DemonstratedTasks, rests: bool = True) -> None:
        family = ML1("reach-v3", 80)
        numbers = [task.number for task in source.named(rows(source, "test"), "test")]
        self._expert = family.expert(tasks_of(family, "test", numbers))
        self._moves = 1.0 - torch.arange(len(numbers)).view(-1, 1, 1) % 2 * rests
        self.asked = 0

    def __call__(self, queries: Tensor) -> Tensor:
        self.asked += 1
        assert not queries[..., -3:].any()
        return self._expert.act(Seen(queries, queries, queries, False), None).mean * self._moves


def test_success_is_counted_over_all_goals_and_episodes_without_an_early_finish(source: DemonstratedTasks) -> None:
    demonstrator = Demonstrator(source)
    values = source.rollouts.measure(demonstrator, rows(source, "test"), "test")
    assert values["success"].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert demonstrator.asked == 80


def test_a_rollout_is_the_same_again_and_in_any_company(source: DemonstratedTasks) -> None:
    class Drifting:
        """Moves a little to one side: some episodes succeed by their disturbances."""

        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def __call__(self, queries: Tensor) -> Tensor:
            self.seen.append(queries.clone())
            return torch.full((*queries.shape[:2], 4), 0.1)

    together, again, alone = Drifting(), Drifting(), Drifting()
    given = rows(source, "test")
    for learner, chosen in ((together, given), (again, given), (alone, given[2:3])):
        source.rollouts.measure(learner, chosen, "test")
    first, second, third = (torch.stack(learner.seen) for learner in (together, again, alone))
    assert torch.equal(first, second)
    assert torch.equal(first[:, 2:3], third)
    assert not torch.equal(first[1:, :, 0], first[1:, :, 1])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"horizon": 5}, "scripted policy solved 0 of [0-9]+ tasks of 'reach' in 5 steps: raise the horizon"),
        ({"environments": ["rech"]}, "no environment 'rech-v3'"),
    ],
)
def test_demonstrations_that_cannot_be_made_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        packed(Demonstrations(DemonstrationsConfig(**{**SMALL, "train": 1, **params})))


@pytest.mark.parametrize("environments", [["reach", "reach"], ["reach-v3"], []])
def test_names_of_environments_are_without_version_and_given_once(environments: list[str]) -> None:
    with pytest.raises(ValidationError):
        DemonstrationsConfig(environments=environments)
