"""Hooks of this distribution.

`metabench list` imports this module, which must import no torch to be fast.
"""

from pathlib import Path

from metabench.specs import EngineSpec, SuiteSpec, hookimpl

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
def metabench_suites() -> list[SuiteSpec]:
    """Return the suites."""
    return [SuiteSpec(path.stem, path) for path in sorted(_SUITES.glob("*.yaml"))]
