"""The core as a plugin: its own engine and executor come in by the hooks of everybody's."""

from __future__ import annotations

from metabench.specs import EngineSpec, ExecutorSpec, hookimpl

#: The engine of suites that name none.
FEW_SHOT = "few-shot"
#: The executor of runs that name none.
PROCESSES = "processes"


@hookimpl
def metabench_engines() -> list[EngineSpec]:
    """Announce the few-shot engine."""
    return [
        EngineSpec(
            FEW_SHOT,
            "metabench.executors.few_shot:FewShot",
            "training on episodes or images, test on episodes of images, vectors or a source",
        )
    ]


@hookimpl
def metabench_executors() -> list[ExecutorSpec]:
    """Announce the executor of this computer."""
    return [
        ExecutorSpec(
            PROCESSES, "metabench.executors.local:Processes", "worker processes of this computer, one job a GPU"
        )
    ]
