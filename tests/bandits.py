"""An engine unlike the built-in one: bandits, without images, classes or torch."""

from __future__ import annotations

#: Each episode is a bandit; a policy that explores `pulls` times is tested by its mean reward.
BANDITS = """
    import os
    from dataclasses import dataclass, field, replace

    import numpy as np

    from metabench.contracts import (
        Attempt, Data, Declaration, EngineCost, EpisodeResults, Interrupted, Machine, Record, Resources, content_hash,
        estimate
    )
    from metabench.specs import EngineSpec, hookimpl

    REWARD = Declaration(title="reward", summary="mean reward after exploration")

    @dataclass(frozen=True)
    class Bandit:
        policy: str
        pulls: int
        seed: int
        problem: str = ""

        @property
        def identity(self):
            return {"policy": self.policy, "pulls": self.pulls, "seed": self.seed}

        @property
        def id(self):
            return content_hash(self.identity)

        @property
        def labels(self):
            return {"algorithm": self.policy, "dataset": "bandits", "backbone": "table", "seed": str(self.seed)}

        @property
        def title(self):
            return f"{self.policy} with {self.pulls} pulls, seed {self.seed}"

    @dataclass(frozen=True)
    class Exploration:
        suite: str
        episodes: int
        cells: list
        after: tuple = ()
        title: str = "exploration"
        key: str = ""
        needs: Resources = Resources()

        def with_cells(self, cells):
            return replace(self, cells=cells)

        def run(self, watcher):
            for cell in self.cells:
                if cell.policy == "exits":
                    os._exit(3)
                watcher.phase("test", self.episodes)
                if watcher.should_stop():
                    raise Interrupted
                values = np.array([self.reward(cell, episode, watcher) for episode in range(self.episodes)])
                yield Attempt(
                    record(self.suite, cell, metrics={"reward": estimate(values)}),
                    EpisodeResults({"reward": values}, np.empty((self.episodes, 0), np.int64)),
                )

        def reward(self, cell, episode, watcher):
            watcher.advance(episode + 1)
            rng = np.random.default_rng([episode, cell.seed])
            arms = rng.uniform(size=5)
            seen = (rng.uniform(size=(cell.pulls, 5)) < arms).mean(axis=0)
            return arms[seen.argmax()] if cell.policy == "greedy" else arms[0]

    def record(suite, cell, **results):
        return Record(
            cell=cell.id, suite=suite, profile="", algorithm=cell.policy, dataset="bandits", backbone="table",
            way=1, shot=cell.pulls, queries=1, setting=f"{cell.pulls} pulls",
            seed=cell.seed, identity=cell.identity, task="regression",
            status="ok" if results.get("metrics") else "failed", ranked_by="reward", declarations={"reward": REWARD},
            device="a processor", machine=Machine(kind="cpu", name="a processor"), dataset_fingerprint="bandits",
            costs={"pulls": EngineCost(title="pulls", value=cell.pulls, summary="pulls of an arm before the test")},
            data=Data(episodes=f"{cell.pulls} pulls", raw_files=0), environment={}, finished="2026-01-01", **results
        )

    @dataclass
    class Work:
        suite: str
        episodes: int
        cells: list
        kept: dict
        expected: dict = field(default_factory=dict)

        def introduce(self, console):
            console.say(f"{len(self.cells)} bandits")

        def jobs(self):
            waiting = [cell for cell in self.cells if cell.id not in self.kept]
            return [Exploration(self.suite, self.episodes, [cell], key=cell.id) for cell in waiting]

        def failed(self, cell, problem):
            return record(self.suite, cell, error=problem)

    @dataclass
    class Plan:
        name: str
        profile: str
        settings: dict
        cells: list

        def lines(self, cells):
            return (cell.title for cell in cells)

        def prepare(self, cells, earlier, store, packing):
            kept = {name: record for name, record in earlier.items() if record.status == "ok"}
            return Work(self.name, self.settings["episodes"], cells, kept)

    class Bandits:
        \"\"\"Policies that explore a bandit.\"\"\"

        def __init__(self, plugins):
            pass

        def plan(self, file, request):
            data = file.data
            if not isinstance(data.get("pulls"), int):
                raise file.error(("pulls",), "the number of pulls is missing")
            seeds = request.seeds or [0]
            cells = [Bandit(policy, data["pulls"], seed) for policy in data["policies"] for seed in seeds]
            return Plan(data["name"], request.profile or "", dict(data), cells)

    @hookimpl
    def metabench_engines():
        return [EngineSpec("bandits", f"{__name__}:Bandits", "explores bandits")]
"""
SUITE = """\
name: explored
engine: bandits
policies: [greedy, first]
pulls: 20
episodes: 40
gate: {tolerance: 0.01}
"""
