"""Software versions and machine of a record."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metabench import __version__
from metabench.machine.device import describe_device, processor


def environment(device: torch.device) -> dict[str, Any]:
    """Return software versions, machine and git commit, for a record."""
    return {
        "metabench": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "git_commit": _git_commit(),
        **described(device),
    }


def described(device: torch.device) -> dict[str, Any]:
    """Return the machine and its threads, for a record."""
    return {
        "platform": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "device": describe_device(device),
    }


def circumstances() -> dict[str, Any]:
    """Return host, processors and niceness, for a record."""
    niceness = os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else None
    return {"host": platform.node() or "unknown", "processors": os.cpu_count(), "niceness": niceness}


def gpu_uuid(device: torch.device) -> str:
    """Return the UUID of a GPU, e.g. ``"GPU-…"``; empty of a CPU, and where CUDA does not say."""
    if device.type != "cuda":
        return ""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return "" if uuid is None else f"GPU-{uuid}"


def load() -> float | None:
    """Return the programs that ran or waited, mean of a minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _git_commit() -> str | None:
    """Return the commit of metabench's checkout; None for an installed copy."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
