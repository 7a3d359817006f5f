"""Networks that a library knows by name, with weights that it fetches."""

from __future__ import annotations

import os
import sys

from pydantic import model_validator

from metabench.api import ModuleConfig


class NamedModelConfig(ModuleConfig):
    """Parameters of a network that a library knows by name.

    Attributes:
        model: name of the network.
        weights: ``pretrained`` for those of the library, a file, or ``none``.
    """

    model: str
    weights: str = "pretrained"

    @model_validator(mode="after")
    def _learns_or_knows(self) -> NamedModelConfig:
        if self.weights == "none" and self.frozen:
            raise ValueError("weights drawn at random would stay as they are: set frozen to false, or name weights")
        return self


def announce_fetching(weights: str, source: str) -> None:
    """Say that weights are fetched.

    Args:
        weights: name of the weights.
        source: the address that they are fetched from.

    Raises:
        ValueError: METABENCH_OFFLINE is set.
    """
    if os.environ.get("METABENCH_OFFLINE", "") not in ("", "0"):
        raise ValueError(f"{weights}: the weights are not on this machine, and METABENCH_OFFLINE is set: {ADVICE}")
    print(f"fetching the weights of {weights} from {source}", file=sys.stderr)


#: What to do where weights cannot be fetched.
ADVICE = "run once with a network, or name a file of weights (`weights: FILE`)"
