"""Memory: kept, measured, and not asked for beyond what there is."""

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
    """Let this process keep the memory that it frees, and take it up again; where the C library is glibc.

    By default every large tensor is given back to the kernel, which clears its pages for the next one: up to a third of
    the time of a training step (docs/performance.md).
    """
    # Older versions refuse thresholds above 32 MiB. Where one is refused, the other must be left alone, too: setting
    # it would end the adaptation of both.
    if _libc("mallopt", _M_MMAP_THRESHOLD, _LARGEST) or _libc("mallopt", _M_MMAP_THRESHOLD, _LARGEST_OF_OLD):
        _libc("mallopt", _M_TRIM_THRESHOLD, _LARGEST)
        # Other threads than the first have heaps of their own, of this size each, so that threads need not wait for one
        # another; a heap that is free is given back unless as much again is to be kept.
        _libc("mallopt", _M_TOP_PAD, _HEAP)


class BatchSize:
    """How many episodes go to the device at once; halved where its memory runs out. It changes no result
    but for rounding.

    Attributes:
        size: at present.
    """

    #: On a CPU, more at once only need more memory; a GPU is to be filled.
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


# Of malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST, _LARGEST_OF_OLD, _HEAP = 2**30, 2**25, 2**26


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
