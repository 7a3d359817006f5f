"""The core as a plugin: its own engine comes in by the hook of everybody's engines."""

from __future__ import annotations

from metabench.specs import EngineSpec, hookimpl

#: The engine of suites that name none.
FEW_SHOT = "few-shot"


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
