"""Cells: algorithm × task family × budget × training seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from metabench.contracts import content_hash
from metabench_rl.configs import Config, OuterConfig
from metabench_rl.environments.names import longest_of
from metabench_rl.suite import Adapt, AlgorithmEntry, Eval, Suite, TaskEntry, Train, updates_of

#: Version of results: a change of the engine that gives other results raises it.
RESULTS = 1
#: Algorithms that are not ranked: floors, and the oracle.
UNRANKED = ("random", "scripted")
#: Algorithms without weights, of which every training seed gives the same result.
_SEEDLESS = ("scripted",)
#: Algorithms that are not trained.
UNTRAINED = ("random", "scripted")


@dataclass(frozen=True)
class Cell:
    """A training of an algorithm on a task family, and its test.

    Attributes:
        label: label of the algorithm.
        algorithm: name of the algorithm.
        params: its parameters.
        tasks_label: label of the task family.
        family: name of the task family.
        tasks: its settings.
        adapt: the rounds of adaptation.
        train: the budget.
        eval: the test.
        seed: training seed.
    """

    label: str
    algorithm: str
    params: Config
    tasks_label: str
    family: str
    tasks: TaskEntry
    adapt: Adapt
    train: Train
    eval: Eval
    seed: int
    problem: str = ""

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `metabench.contracts.Cell`."""
        return {
            "engine": "meta-rl",
            "results": RESULTS,
            "algorithm": {"name": self.algorithm, "params": self.params.model_dump(mode="json")},
            "tasks": {
                "name": self.family,
                **self.tasks.model_dump(mode="json", exclude={"use"}),
                "horizon": self.horizon,
            },
            "adapt": self.adapt.model_dump(mode="json"),
            "train": None if self.algorithm in UNTRAINED else self.train.model_dump(mode="json"),
            "test": self.eval.model_dump(mode="json"),
            "seed": self.seed,
        }

    @property
    def horizon(self) -> int:
        """Return the most steps of an episode."""
        return self.tasks.horizon or longest_of(self.family)

    @property
    def updates(self) -> int:
        """Return the number of updates that the budget pays; 0 of an algorithm that is not trained."""
        if not isinstance(self.params, OuterConfig):
            return 0
        return updates_of(self.params, self.tasks, self.horizon, self.adapt, self.train, self.eval)

    @property
    def id(self) -> str:
        """See `metabench.contracts.Cell`."""
        return content_hash(self.identity)

    @property
    def labels(self) -> Mapping[str, str]:
        """See `metabench.contracts.Cell`."""
        return {"algorithm": self.label, "dataset": self.tasks_label, "backbone": "", "seed": str(self.seed)}

    @property
    def setting(self) -> str:
        """Return what the methods of a table have in common, for people."""
        rounds = f"{self.adapt.rounds} × {self.adapt.episodes} episodes"
        return f"{rounds} · {self.train.env_steps:,} env steps"

    @property
    def title(self) -> str:
        """See `metabench.contracts.Cell`."""
        return f"{self.label} · {self.tasks_label} · seed {self.seed}"

    @property
    def every_seed(self) -> bool:
        """Return whether every training seed gives the same result."""
        return self.algorithm in _SEEDLESS


def cells_of(suite: Suite, params: Mapping[str, Config]) -> Iterator[Cell]:
    """Yield the cells of a suite; one alone of an algorithm that no seed changes."""
    for tasks_label, tasks in suite.tasks.items():
        for label, entry in suite.algorithms.items():
            for seed in suite.seeds:
                cell = _cell(suite, tasks_label, tasks, label, entry, params[label], seed)
                if seed == suite.seeds[0] or not cell.every_seed:
                    yield cell


def _cell(
    suite: Suite, tasks_label: str, tasks: TaskEntry, label: str, entry: AlgorithmEntry, params: Config, seed: int
) -> Cell:
    return Cell(
        label=label,
        algorithm=entry.use or label,
        params=params,
        tasks_label=tasks_label,
        family=tasks.use or tasks_label,
        tasks=tasks,
        adapt=suite.adapt,
        train=suite.train,
        eval=suite.eval,
        seed=seed,
    )
