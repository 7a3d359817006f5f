"""Hooks of this distribution.

`metabench list` imports this module, which must import neither torch nor ray to be fast.
"""

from metabench.specs import ExecutorSpec, hookimpl


@hookimpl
def metabench_executors() -> list[ExecutorSpec]:
    """Return the executor on Ray."""
    return [
        ExecutorSpec(
            "ray",
            "metabench_ray.executor:OnRay",
            "nodes of a Ray cluster, which may die or join; without an address, this computer",
            "Moritz et al. 2018",
            "https://arxiv.org/abs/1712.05889",
        )
    ]
