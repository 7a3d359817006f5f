"""The device that computes, and the threads of a CPU."""

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


def describe_device(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor with the threads that torch uses."""
    if device.type == "cuda":
        return device_name(device)
    threads = torch.get_num_threads()
    return f"{device_name(device)}, {threads} thread{'s' if threads != 1 else ''}"


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or the processor."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else processor()


def processor() -> str:
    """Return the name of the processor, as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
