"""Hooks of this distribution; imports no torch, so that `metabench list` is fast."""

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
