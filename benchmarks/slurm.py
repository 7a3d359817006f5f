"""Measures what SLURM adds to a cell, beside worker processes of this computer.

python benchmarks/slurm.py --cells 100

Runs a suite of many cells of three steps each with `--jobs 2`, and then on a real SLURM of two nodes of one processor,
which this script starts on this computer (root, Debian's packages slurmctld, slurmd, slurm-client and munge), by an
array of two tasks. Prints the wall time, its share of a cell, the time to the first record, and the peak memory of the
command that drives the run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from slurm_cluster import running_cluster, why_not

SUITE = """\
name: overhead
datasets: {{glyphs: {{}}}}
backbones: {{conv4: {{params: {{channels: 2, downsample: stride}}}}}}
algorithms: {{protonet: {{}}}}
ways: [2]
shots: [1]
queries: 2
seeds: {seeds}
train: {{steps: 3, validation_episodes: 2}}
eval: {{episodes: 10}}
"""
METABENCH = [sys.executable, "-c", "from metabench.cli import script; script()"]


def main() -> None:
    """Run the suite on both, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--only", choices=["local", "slurm"], help="run on one of them")
    arguments = parser.parse_args()
    if why_not():
        parser.error(why_not())
    with tempfile.TemporaryDirectory() as name, running_cluster(Path(name) / "cluster", cpus=1, gpus=1) as cluster:
        folder = Path(name)
        (folder / "suite.yaml").write_text(SUITE.format(seeds=list(range(arguments.cells))), encoding="utf-8")
        (folder / "slurm.yaml").write_text("executor: slurm\narray: 2\npoll: 1s\n", encoding="utf-8")
        (folder / "local.yaml").write_text("executor: processes\njobs: 2\nthreads: 1\n", encoding="utf-8")
        for place in [arguments.only] if arguments.only else ["local", "slurm"]:
            measure(place, folder, arguments.cells, cluster.environment)


def measure(place: str, folder: Path, cells: int, environment: Mapping[str, str]) -> None:
    """Run the suite on an executor, and print."""
    command = [*METABENCH, "run", "suite.yaml", "--output", place, "--executor", f"{place}.yaml", "--device", "cpu"]
    begun = time.monotonic()
    with open(folder / f"{place}.log", "wb") as log:
        driver = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    first, peak = 0.0, 0
    while driver.poll() is None:
        peak = max(peak, peak_memory(driver.pid))
        if not first and any((folder / place).glob("cells/*.json")):
            first = time.monotonic() - begun
        time.sleep(0.05)
    whole = time.monotonic() - begun
    if driver.returncode:
        sys.exit((folder / f"{place}.log").read_text(errors="replace"))
    done = len(list((folder / place).glob("cells/*.json")))
    print(
        f"{place}: {done} of {cells} records in {whole:.1f} s, {(whole - first) / max(1, done - 1):.3f} s a cell after "
        f"the first, which came after {first:.1f} s; driver {peak / 1024:.0f} MiB",
        flush=True,
    )


def peak_memory(pid: int) -> int:
    """Return the peak resident memory of a process in KiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()
