"""Hooks of this distribution.

`metabench list` imports this module, which must import no torch to be fast.
"""

from metabench.specs import AlgorithmSpec, hookimpl


@hookimpl
def metabench_algorithms() -> list[AlgorithmSpec]:
    """Return BOIL."""
    return [
        AlgorithmSpec(
            "boil",
            "metabench_boil.algorithm:BOIL",
            "MAML whose inner loop moves the network, not its linear layer",
            "Oh et al. 2021",
            "https://arxiv.org/abs/2008.08882",
        )
    ]
