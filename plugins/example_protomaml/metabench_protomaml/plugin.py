"""Hooks of this distribution.

`metabench list` imports this module, which must import no torch to be fast.
"""

from metabench.specs import AlgorithmSpec, hookimpl


@hookimpl
def metabench_algorithms() -> list[AlgorithmSpec]:
    """Return ProtoMAML."""
    return [
        AlgorithmSpec(
            "protomaml",
            "metabench_protomaml.algorithm:ProtoMAML",
            "MAML whose linear head starts from the class prototypes",
            "Triantafillou et al. 2020",
            "https://arxiv.org/abs/1903.03096",
        )
    ]
