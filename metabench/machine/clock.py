"""Clocks that wait for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from metabench.machine.stops import seconds_awake


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Add up the time of work on a device, without the time that the process is stopped.

    Attributes:
        seconds: total time so far.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._device = device

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time of the block, from an idle device to an idle device."""
        synchronise(self._device)
        start = seconds_awake()
        try:
            yield
        finally:
            synchronise(self._device)
            self.seconds += seconds_awake() - start


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    """Return the median and the 95th percentile, in milliseconds."""
    p50, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}
