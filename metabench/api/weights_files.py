"""Files of weights of other libraries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from metabench.errors import in_one_line

#: Keys under which training scripts store the weights beside other state.
_NESTED = ("state_dict", "model")
#: The prefix of all names of a network that was wrapped by `nn.DataParallel`.
_PARALLEL = "module."


def load_weights_file(module: nn.Module, path: str, dropped: Collection[str] = ()) -> None:
    """Load the weights of a file into a network.

    The file is of safetensors, or one that `torch.load` reads without running code; the weights may be under the key
    ``state_dict`` or ``model``.

    Args:
        module: the network.
        path: the file.
        dropped: submodules that will be dropped, such as the classifier: their weights may differ.

    Raises:
        ValueError: the file cannot be read, or its weights do not fit the network.
    """
    own, found = module.state_dict(), _read(Path(path))
    compared = [name for name in sorted({*own, *found}) if not _may_differ(name, dropped)]
    problems = {
        "they lack": [name for name in compared if name not in found],
        "they have, and the network has not,": [name for name in compared if name not in own],
        "another shape has": [name for name in compared if not _fits(found.get(name), own.get(name))],
    }
    for problem, names in problems.items():
        if names:
            others = f" and {len(names) - 1} others" if len(names) > 1 else ""
            raise ValueError(
                f"the weights {path} do not fit {type(module).__name__}: {problem} '{names[0]}'{others}. Name the "
                "network that they were made for"
            )
    fitting = {name: value for name, value in found.items() if name in own and _fits(value, own[name])}
    module.load_state_dict({**own, **fitting})


def _may_differ(name: str, dropped: Collection[str]) -> bool:
    """Return whether a weight is of a dropped submodule, or a counter of batch norm, which old files lack."""
    return name.endswith("num_batches_tracked") or f"{name}.".startswith(tuple(f"{module}." for module in dropped))


def _fits(found: object, own: object) -> bool:
    return isinstance(found, Tensor) and isinstance(own, Tensor) and found.shape == own.shape


def _read(path: Path) -> Mapping[str, Any]:
    """Return a state dict.

    Raises:
        ValueError: the file is missing, damaged, or holds none.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zip or safetensors
        raise ValueError(f"the weights {path} cannot be read: {in_one_line(error)}") from error
    nested: Sequence[Any] = [state[key] for key in _NESTED if isinstance(state, dict) and key in state]
    state = next((inner for inner in nested if isinstance(inner, dict)), state)
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"the weights {path} are no weights by name (a state dict): save `network.state_dict()`")
    wrapped = all(str(name).startswith(_PARALLEL) for name in state)
    return {str(name).removeprefix(_PARALLEL) if wrapped else str(name): value for name, value in state.items()}
