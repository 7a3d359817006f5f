"""Hooks of this distribution.

`metabench list` imports this module, which must import no torch to be fast.
"""

from pathlib import Path

from metabench.specs import AlgorithmSpec, DatasetSpec, EngineSpec, SuiteSpec, hookimpl

_SUITES = Path(__file__).parent / "suites"


@hookimpl
def metabench_engines() -> list[EngineSpec]:
    """Return the engine of meta-reinforcement learning."""
    return [
        EngineSpec(
            "meta-rl",
            "metabench_rl.engine:MetaRL",
            "trains policies that adapt to a new task within a few episodes, and tests them on unseen tasks",
        )
    ]


@hookimpl
def metabench_datasets() -> list[DatasetSpec]:
    """Return the demonstrations."""
    return [
        DatasetSpec(
            "metaworld",
            "metabench_rl.imitation.demonstrations:Demonstrations",
            "demonstrations of Meta-World's scripted policies, for few-shot imitation",
            "Yu et al. 2019",
            "https://arxiv.org/abs/1910.10897",
            requires="metabench-rl[metaworld]",
            library="metaworld",
            licence="MIT",
        )
    ]


@hookimpl
def metabench_algorithms() -> list[AlgorithmSpec]:
    """Return the policy that is conditioned on demonstrations."""
    return [
        AlgorithmSpec(
            "conditioned",
            "metabench_rl.imitation.conditioned:Conditioned",
            "answers queries of a regression given the mean embedding of the support points",
            "Garnelo et al. 2018",
            "https://arxiv.org/abs/1807.01613",
            differs=("it tells means without deviations, by the squared error",),
        )
    ]


@hookimpl
def metabench_suites() -> list[SuiteSpec]:
    """Return the suites."""
    return [SuiteSpec(path.stem, path) for path in sorted(_SUITES.glob("*.yaml"))]
