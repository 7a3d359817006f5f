"""Memory: keep freed pages, fit batches, measure the peak."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, TypeVar

import torch

_T = TypeVar("_T")


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for later tensors of this process.

    By default, glibc returns the memory of every large tensor to the kernel, which must clear the pages of the next
    one: up to a third of the time of a training step (docs/performance.md). Other C libraries are left alone.
    """
    # Older versions of glibc refuse thresholds above 32 MiB. If the first threshold is refused, do not set the second
    # either: setting one of them disables glibc's dynamic adjustment of both.
    if _libc("mallopt", _M_MMAP_THRESHOLD, _LARGEST) or _libc("mallopt", _M_MMAP_THRESHOLD, _OLD_LARGEST):
        _libc("mallopt", _M_TRIM_THRESHOLD, _LARGEST)
        # Threads other than the main one allocate from heaps of `_HEAP` bytes. glibc returns a free heap to the kernel
        # unless the padding is at least as large.
        _libc("mallopt", _M_TOP_PAD, _HEAP)


class BatchSize:
    """The number of episodes computed at once, halved when memory runs out.

    The size changes results by rounding only.

    Args:
        device: the device that computes.
        size: initial size; by default, 8 on a CPU and 256 on a GPU.
        most: upper bound of the size.

    Attributes:
        size: the current size.
    """

    #: More episodes at once only cost memory on a CPU, but fill a GPU.
    _AUTOMATIC: ClassVar[dict[str, int]] = {"cpu": 8, "cuda": 256}

    def __init__(self, device: torch.device, size: int | None = None, most: int | None = None) -> None:
        self.size = size or self._AUTOMATIC.get(device.type, 8)
        self.size = min(self.size, most or self.size)

    def fit(self, work: Callable[[int], _T]) -> _T:
        """Return ``work(size)``, halving the size whenever memory runs out."""
        while True:
            try:
                return work(self.size)
            except (MemoryError, RuntimeError) as error:
                if self.size == 1 or not is_out_of_memory(error):
                    raise
            self.size //= 2  # outside the handler, because the exception keeps the failed attempt's tensors alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports exhausted memory."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    # Messages of the CPU allocator, of CUDA, and of CUDA's libraries.
    return any(words in str(error) for words in ("can't allocate memory", "out of memory", "_ALLOC_FAILED"))


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a GPU; None of another device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


class PeakMemory:
    """Measure the peak memory since construction.

    On CUDA, the peak of the memory allocated by torch; on a CPU, the peak resident set of the process, which includes
    Python, torch and the data.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _libc("malloc_trim", 0)  # return what earlier cells freed
            _reset_resident_peak()

    def bytes(self) -> int:
        """Return the peak so far, in bytes; 0 where the system cannot tell."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return _resident_peak()


# Constants of malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST, _OLD_LARGEST, _HEAP = 2**30, 2**25, 2**26


def _libc(function: str, *arguments: int) -> int:
    """Call a function of glibc; return 0 with another C library."""
    return int(getattr(ctypes.CDLL(None), function)(*arguments)) if platform.libc_ver()[0] == "glibc" else 0


_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def _reset_resident_peak() -> None:
    # Without Linux or the permission, the peak is that of the whole life of the process.
    with suppress(OSError):
        _CLEAR_REFS.write_text("5")  # resets the peak resident set to the current one (proc(5))


def _resident_peak() -> int:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
