"""Clocks that wait for the device, peak memory, and what the machine is."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from metabench import __version__
from metabench.errors import MetabenchError

_T = TypeVar("_T")


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


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, and take it up again; where the C library is glibc.

    By default every large tensor is given back to the kernel, which clears its pages for the next one: up to a third of
    the time of a training step (docs/performance.md).
    """
    # Older versions refuse thresholds above 32 MiB. Where one is refused, the other must be left alone, too: setting
    # it would end the adaptation of both.
    if _libc("mallopt", _M_MMAP_THRESHOLD, _LARGEST) or _libc("mallopt", _M_MMAP_THRESHOLD, _LARGEST_OF_OLD):
        _libc("mallopt", _M_TRIM_THRESHOLD, _LARGEST)


class BatchSize:
    """How many episodes go to the device at once; halved where its memory runs out. It changes no result.

    Attributes:
        size: at present.
    """

    #: On a CPU episodes are predicted one by one, and more at once only need more memory; a GPU is to be filled.
    _AUTOMATIC: ClassVar[dict[str, int]] = {"cpu": 8, "cuda": 256}

    def __init__(self, device: torch.device, size: int | None = None, most: int | None = None) -> None:
        self.size = size or self._AUTOMATIC.get(device.type, 8)
        self.size = min(self.size, most or self.size)

    def fit(self, work: Callable[[int], _T]) -> _T:
        """Return what `work` does with so many episodes, or with half as many as often as memory runs out."""
        while True:
            try:
                return work(self.size)
            except (MemoryError, RuntimeError) as error:
                if self.size == 1 or not is_out_of_memory(error):
                    raise
            self.size //= 2  # outside of the handler, which keeps the tensors of the failed attempt alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is for want of memory."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    # RuntimeErrors of the CPU's allocator, of CUDA and of its libraries.
    return any(words in str(error) for words in ("can't allocate memory", "out of memory", "_ALLOC_FAILED"))


class PeakMemory:
    """The most memory in use since it was made.

    On CUDA, what the allocator handed out; on a CPU, the resident set of the process, which includes Python,
    torch and the data.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _libc("malloc_trim", 0)  # what an earlier cell freed is not this one's
            _reset_resident_peak()

    def bytes(self) -> int:
        """Return the peak so far."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return _resident_peak()


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


# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST, _LARGEST_OF_OLD = 2**30, 2**25


def _libc(function: str, *arguments: int) -> int:
    """Return what a function of glibc returns; elsewhere there is nothing to do."""
    return int(getattr(ctypes.CDLL(None), function)(*arguments)) if platform.libc_ver()[0] == "glibc" else 0


_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def _reset_resident_peak() -> None:
    # Where this is not Linux, or not allowed, the peak is that of the whole process.
    with suppress(OSError):
        _CLEAR_REFS.write_text("5")  # proc(5): resets the peak resident set to what is in use now


def _resident_peak() -> int:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
