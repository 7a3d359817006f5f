"""Time the same small cells on this computer and on a real Ray, one after the other.

``python benchmarks/overhead.py --trainings 40 --steps 3`` prints a line for each: seconds to the first record and in
all, those a cell beyond the first, processor seconds and peak memory of the driver, and the load of the computer.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from real_ray import real_ray, why_not
from runs import SUITE, Run


def timed(name: str, run: Run, cells: int) -> str:
    """Return a line on a run."""
    begun, first = time.monotonic(), 0.0
    driver = run.start()
    while True:
        pid, status, usage = os.wait4(driver.pid, os.WNOHANG)
        if not first and run.count:
            first = time.monotonic() - begun
        if pid:
            break
        time.sleep(0.02)
    seconds = time.monotonic() - begun
    assert status == 0, run.errors
    assert run.count == cells
    each = (seconds - first) / (cells - 1)
    return (
        f"{name:<10} first record {first:6.1f} s, all {seconds:7.1f} s, a cell {each:6.3f} s, "
        f"driver {usage.ru_utime + usage.ru_stime:6.1f} processor s, peak {usage.ru_maxrss / 1024:5.0f} MB, "
        f"load {os.getloadavg()[0]:4.1f}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainings", type=int, default=40)
    parser.add_argument("--tests", type=int, default=1, help="tests of each training, by their shots; one is a cell")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--only", choices=["processes", "ray"])
    given = parser.parse_args()
    if reason := why_not():
        sys.exit(f"no real Ray: {reason}")
    suite = SUITE.replace("steps: 60, validate_every: 20", f"steps: {given.steps}")
    suite = suite.replace("shots: [1]", f"shots: {list(range(1, given.tests + 1))}")
    seeds, cells = ["--seeds", ",".join(map(str, range(given.trainings)))], given.trainings * given.tests
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        if given.only != "ray":
            print(timed("processes", Run(Path(folder) / "here", suite, seeds), cells), flush=True)
        if given.only != "processes":
            with real_ray(Path(folder), given.nodes) as ray:
                print(timed("ray", Run(Path(folder) / "there", suite, seeds, ray), cells), flush=True)


if __name__ == "__main__":
    main()
