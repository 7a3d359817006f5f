"""Energy is what the machine reports, or nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from metabench.machine.meter import Meter, Used

CPU = torch.device("cpu")
RANGE = 262_144.0


class Powercap:
    """A made-up folder of energy counters, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = 0.0
        folder.mkdir()

    def zone(self, name: str, label: str, joules: float, wraps_at: float | None = RANGE) -> None:
        zone = self.folder / name
        zone.mkdir(exist_ok=True)
        (zone / "name").write_text(f"{label}\n")
        (zone / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
        if wraps_at is not None:
            (zone / "max_energy_range_uj").write_text(f"{int(wraps_at * 1e6)}\n")

    def meter(self) -> Meter:
        return Meter(CPU, self.folder, lambda: self.seconds)


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    return Powercap(tmp_path / "powercap")


def test_packages_add_up_and_their_parts_do_not_count_twice(powercap: Powercap) -> None:
    for name, label in {
        "intel-rapl:0": "package-0",
        "intel-rapl:1": "package-1",
        "intel-rapl:0:0": "core",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }.items():
        powercap.zone(name, label, 100)
    with powercap.meter() as meter:
        for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
            powercap.zone(name, (powercap.folder / name / "name").read_text().strip(), 130)
        assert meter.read().cpu_joules == pytest.approx(60)


def test_a_counter_that_wraps_goes_on(powercap: Powercap) -> None:
    powercap.zone("intel-rapl:0", "package-0", RANGE - 10)
    with powercap.meter() as meter:
        powercap.seconds = 20
        powercap.zone("intel-rapl:0", "package-0", 30)
        assert meter.read().cpu_joules == pytest.approx(40)
        powercap.zone("intel-rapl:0", "package-0", 50)
        assert meter.read().cpu_joules == pytest.approx(60)


def test_a_counter_that_may_have_wrapped_twice_says_nothing(powercap: Powercap) -> None:
    powercap.zone("intel-rapl:0", "package-0", 10)
    with powercap.meter() as meter:
        powercap.seconds = 3600
        powercap.zone("intel-rapl:0", "package-0", 30)
        assert meter.read().cpu_joules is None
        powercap.zone("intel-rapl:0", "package-0", 40)
        assert meter.read().cpu_joules is None, "it stays unknown"


def test_a_counter_without_a_range_must_not_fall(powercap: Powercap) -> None:
    powercap.zone("intel-rapl:0", "package-0", 10, wraps_at=None)
    with powercap.meter() as meter:
        powercap.zone("intel-rapl:0", "package-0", 30, wraps_at=None)
        assert meter.read().cpu_joules == pytest.approx(20)
        powercap.zone("intel-rapl:0", "package-0", 5, wraps_at=None)
        assert meter.read().cpu_joules is None


def test_one_package_that_may_not_be_read_hides_the_sum(powercap: Powercap) -> None:
    powercap.zone("intel-rapl:0", "package-0", 10)
    powercap.zone("intel-rapl:1", "package-1", 10)
    unreadable = powercap.folder / "intel-rapl:1" / "energy_uj"
    unreadable.unlink()
    unreadable.mkdir()  # reading a folder fails for root, too
    with powercap.meter() as meter:
        assert meter.read().cpu_joules is None


def test_a_machine_without_counters_has_times_and_no_energy(tmp_path: Path) -> None:
    with Meter(CPU, tmp_path / "nothing") as meter:
        sum(range(100_000))
        used = meter.read()
    assert used.cpu_seconds > 0
    assert used.wall_seconds > 0
    assert (used.cpu_joules, used.gpu_joules) == (None, None)


def test_what_a_part_does_not_know_the_sum_does_not_know() -> None:
    assert Used(1, 2, 3.0, None) + Used(1, 2, None, 5.0) == Used(2, 4, None, None)
    assert Used() + Used(1, 2, 3.0, 4.0) == Used(1, 2, 3.0, 4.0)


class Nvml(ModuleType):
    """A made-up pynvml: a counter in millijoules of one GPU, by its UUID."""

    class NVMLError(Exception):
        """What NVML raises."""

    def __init__(self, counts: bool = True) -> None:
        super().__init__("pynvml")
        self.counts, self.millijoules = counts, 5000

    def nvmlInit(self) -> None:
        """Begin."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-abc":
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self.counts:
            raise self.NVMLError("not supported")
        return self.millijoules


@pytest.mark.parametrize(("uuid", "counts", "joules"), [("abc", True, 2.5), ("abc", False, None), ("xyz", True, None)])
def test_a_gpu_is_found_by_its_uuid_and_may_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uuid: str, counts: bool, joules: float | None
) -> None:
    nvml = Nvml(counts)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuid))
    with Meter(torch.device("cuda", 0), tmp_path) as meter:
        nvml.millijoules += 2500
        assert meter.read().gpu_joules == joules


def test_a_gpu_without_nvml_has_no_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with Meter(torch.device("cuda", 0), tmp_path) as meter:
        assert meter.read().gpu_joules is None
