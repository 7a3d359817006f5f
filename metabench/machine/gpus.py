"""The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES has; nothing here uses one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

#: The variable that makes GPUs visible.
VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(environ: Mapping[str, str] = os.environ, count: Callable[[], int] | None = None) -> list[str]:
    """Return the names of the GPUs: those of an inherited CUDA_VISIBLE_DEVICES as they are, else all numbers.

    Names are numbers, UUIDs (``GPU-…``) or parts of a GPU (``MIG-…``). As in CUDA, names after an invalid one (``-1``)
    are not visible.

    Args:
        environ: the environment.
        count: returns the number of GPUs of this computer; by default, torch does.
    """
    if VISIBLE not in environ:
        return [str(number) for number in range((count or _count)())]
    names = []
    for name in environ[VISIBLE].split(","):
        if not name.strip() or name.strip().startswith("-"):
            break
        names.append(name.strip())
    return names


def _count() -> int:
    import torch

    return torch.cuda.device_count()
