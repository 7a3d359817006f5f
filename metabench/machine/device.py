"""Clocks that wait for the device, and what the machine is."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metabench import __version__
from metabench.errors import MetabenchError
from metabench.machine.memory import keep_freed_memory


def choose_device(wanted: str) -> torch.device:
    """Return the device of the name ``cpu``, ``cuda`` or ``auto`` (CUDA where there is one), and get the process ready.

    Raises:
        MetabenchError: CUDA was asked for by name, and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        keep_freed_memory()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MetabenchError("--device cuda: torch sees no CUDA device here; use --device cpu")
    # cuBLAS reproduces its results only with a workspace of fixed size (its documentation, section 2.1.4).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", torch.cuda.current_device())


def share_of_threads(jobs: int) -> int:
    """Return how many threads each of so many processes should compute in, where this one computes in all."""
    return max(1, torch.get_num_threads() // jobs)


@contextmanager
def in_threads(count: int) -> Iterator[None]:
    """Compute in so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked; a clock read after this is honest."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Adds up the seconds of work on a device.

    Attributes:
        seconds: so far.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._device = device

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block, from an idle device to an idle device."""
        synchronise(self._device)
        start = time.perf_counter()
        try:
            yield
        finally:
            synchronise(self._device)
            self.seconds += time.perf_counter() - start


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    """Return the median and the 95th percentile, in milliseconds."""
    p50, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def describe_device(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor with the threads that torch uses."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads != 1 else ''}"


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a reader needs to know of the machine and the software."""
    return {
        "metabench": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": describe_device(device),
        "git_commit": _git_commit(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """Return the commit of the checkout that metabench runs from, or None for an installed copy."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
