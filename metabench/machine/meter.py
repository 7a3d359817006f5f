"""Measure processor time, wall time and energy; an energy that the machine does not report is None, never estimated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from metabench.machine.stops import seconds_awake

#: Counters of the processors' energy (Linux' powercap; RAPL of Intel, and of AMD under the same name).
POWERCAP = Path("/sys/class/powercap")
#: Seconds between two readings of counters, which wrap around.
_EVERY = 20.0
#: More watts than a processor package takes: between two readings, a counter wraps at most once below that power.
_MOST_WATTS = 2000.0


@dataclass(frozen=True)
class Used:
    """What a piece of work used.

    Attributes:
        cpu_seconds: processor time of all threads of this process.
        wall_seconds: time without the time that the process was stopped.
        cpu_joules: energy of the processor packages in that time, that of other programs included; None where the
            machine does not report it to this user.
        gpu_joules: the same of the GPU; None on a CPU, too.
    """

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    cpu_joules: float | None = 0.0
    gpu_joules: float | None = 0.0

    @classmethod
    def of(cls, values: Mapping[str, float | None] | None) -> Used | None:
        """Return what plain data says, e.g. those of a checkpoint; None for None."""
        return None if values is None else cls(**values)  # type: ignore[arg-type]

    def __add__(self, other: Used) -> Used:
        """Return the sum; what one of the two does not know is not known."""
        return Used(
            self.cpu_seconds + other.cpu_seconds,
            self.wall_seconds + other.wall_seconds,
            _sum([self.cpu_joules, other.cpu_joules]),
            _sum([self.gpu_joules, other.gpu_joules]),
        )


def _sum(values: Sequence[float | None]) -> float | None:
    """Return a sum; None of nothing, and where a part is None."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


class Meter:
    """Measure what the work between ``with`` and `read` uses.

    Args:
        device: the device that it runs on.
        powercap: folder of the processors' counters.
        clock: returns seconds; decides whether a counter may have wrapped around twice.
    """

    def __init__(
        self, device: torch.device, powercap: Path = POWERCAP, clock: Callable[[], float] = time.monotonic
    ) -> None:
        zones = sorted(powercap.glob("intel-rapl:*/name"))
        # Packages only: cores are parts of them, and the whole platform (psys) contains them.
        self._packages = [_Package(path.parent, clock) for path in zones if _text(path).startswith("package")]
        self._gpu = _gpu_counter(device)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read_often, daemon=True)
        self._begin = self._now()

    def __enter__(self) -> Meter:
        """Begin to measure."""
        with self._lock:
            for package in self._packages:
                package.begin()
        self._begin = self._now()
        if self._packages:
            self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading the counters."""
        self._ended.set()

    def read(self) -> Used:
        """Return what was used so far."""
        cpu, wall, gpu = self._now()
        first_cpu, first_wall, first_gpu = self._begin
        with self._lock:
            joules = _sum([package.joules() for package in self._packages])
        gpu_joules = None if gpu is None or first_gpu is None or gpu < first_gpu else gpu - first_gpu
        return Used(cpu - first_cpu, wall - first_wall, joules, gpu_joules)

    def _now(self) -> tuple[float, float, float | None]:
        return time.process_time(), seconds_awake(), self._gpu()

    def _read_often(self) -> None:
        while not self._ended.wait(_EVERY):
            with self._lock:
                for package in self._packages:
                    package.joules()


class _Package:
    """The energy counter of a processor package, which begins again at 0 beyond its range."""

    def __init__(self, zone: Path, clock: Callable[[], float]) -> None:
        self._zone, self._clock = zone, clock
        self._range = _joules(zone / "max_energy_range_uj")
        self.begin()

    def begin(self) -> None:
        """Begin at 0."""
        self._total: float | None = 0.0
        self._last, self._read_at = _joules(self._zone / "energy_uj"), self._clock()

    def joules(self) -> float | None:
        """Return the energy since `begin`; None once it is not known."""
        now, read_at = _joules(self._zone / "energy_uj"), self._clock()
        if self._total is None or now is None or self._last is None:
            self._total = None
            return None
        used = now - self._last
        if self._range is None:
            self._total = None if used < 0 else self._total + used
        elif (read_at - self._read_at) * _MOST_WATTS > self._range:
            self._total = None
        else:
            self._total += used % self._range
        self._last, self._read_at = now, read_at
        return self._total


def _text(path: Path) -> str:
    """Return a text; empty where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _joules(path: Path) -> float | None:
    """Return the microjoules of a file in joules; None without permission, and where it holds no number."""
    try:
        return int(_text(path)) / 1e6
    except ValueError:
        return None


def _gpu_counter(device: torch.device) -> Callable[[], float | None]:
    """Return a function that reads the joules of a GPU since its driver was loaded; it returns None without NVML."""
    if device.type != "cuda":
        return lambda: None
    try:
        import pynvml
    except ImportError:
        return lambda: None
    nvml: Any = pynvml
    # By its UUID: CUDA_VISIBLE_DEVICES changes the numbers that torch sees, and not those of NVML.
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)

    def read() -> float | None:
        try:
            nvml.nvmlInit()
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))) / 1e3
        except nvml.NVMLError:  # no driver, an old GPU, or a part of one
            return None

    return read
