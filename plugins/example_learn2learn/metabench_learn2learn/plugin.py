"""Hooks of this distribution.

`metabench list` imports this module, which must import neither torch nor learn2learn to be fast.
"""

from metabench.specs import AlgorithmSpec, hookimpl

_HERE = "metabench_learn2learn.algorithms"


@hookimpl
def metabench_algorithms() -> list[AlgorithmSpec]:
    """Return learn2learn's MAML, Meta-SGD and Kronecker-factored GBML."""
    return [
        AlgorithmSpec(
            "l2l-maml",
            f"{_HERE}:MAML",
            "learn2learn's MAML",
            "Finn et al. 2017",
            "https://arxiv.org/abs/1703.03400",
            library="learn2learn",
        ),
        AlgorithmSpec(
            "l2l-metasgd",
            f"{_HERE}:MetaSGD",
            "learn2learn's Meta-SGD",
            "Li et al. 2017",
            "https://arxiv.org/abs/1707.09835",
            library="learn2learn",
        ),
        AlgorithmSpec(
            "l2l-kronecker",
            f"{_HERE}:Kronecker",
            "learn2learn's MAML with gradients transformed by Kronecker-factored matrices, which are learnt",
            "Arnold et al. 2019",
            "https://arxiv.org/abs/1910.13603",
            library="learn2learn",
        ),
    ]
