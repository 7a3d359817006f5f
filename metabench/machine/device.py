"""The device, and the threads of a CPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from metabench.errors import MetabenchError
from metabench.machine.memory import keep_freed_memory


def choose_device(wanted: str) -> torch.device:
    """Return the device of a name, and prepare the process for it.

    Args:
        wanted: ``cpu``, ``cuda``, or ``auto`` for CUDA if available.

    Raises:
        MetabenchError: `wanted` is ``cuda``, and torch sees no CUDA device.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        keep_freed_memory()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MetabenchError("--device cuda: torch sees no CUDA device here; use --device cpu")
    # cuBLAS is deterministic only with a workspace of fixed size (cuBLAS documentation, section 2.1.4).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", torch.cuda.current_device())


def share_of_threads(jobs: int) -> int:
    """Return the number of threads per process if `jobs` processes share this one's."""
    return max(1, torch.get_num_threads() // jobs)


@contextmanager
def in_threads(count: int) -> Iterator[None]:
    """Let torch compute in `count` threads within the block."""
    previous = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def describe_device(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor with torch's threads."""
    if device.type == "cuda":
        return device_name(device)
    threads = torch.get_num_threads()
    return f"{device_name(device)}, {threads} thread{'s' if threads != 1 else ''}"


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or the processor."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else processor()


def processor() -> str:
    """Return the processor's name from the operating system."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
