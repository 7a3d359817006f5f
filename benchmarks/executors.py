"""Times the same small cells on this computer, on a real SLURM and on a real Ray, one after the other.

    python benchmarks/executors.py --trainings 100

Each has two processors, and jobs of one thread: two worker processes; a SLURM of two nodes, by an array of two tasks;
a Ray of two nodes. SLURM and Ray are started here, by the means of the tests: root, Debian's packages slurmctld,
slurmd, slurm-client and munge; metabench-ray, and network namespaces. What is missing is left out, with the reason.
Prints for each: seconds to the first record, a further cell and in all; processor seconds and peak memory of the
command that drives the run; and the load of the computer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "plugins" / "metabench_ray" / "tests")]

SUITE = """\
name: overhead
datasets: {{glyphs: {{}}}}
backbones: {{conv4: {{params: {{channels: 2, downsample: stride}}}}}}
algorithms: {{protonet: {{}}}}
ways: [2]
shots: {shots}
queries: 2
seeds: {seeds}
train: {{steps: 3, validation_episodes: 2}}
eval: {{episodes: 10}}
"""
HEADERS = ["executor", "first record s", "a further cell s", "all s", "driver processor s", "driver peak MiB", "load"]


@dataclass(frozen=True)
class Place:
    """An executor that runs.

    Attributes:
        options: its file of options, in YAML.
        prefix: first words of a command that uses the executor.
        environment: variables of a command that uses the executor.
    """

    options: str
    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class Missing(Exception):
    """An executor cannot be started here; the reason."""


@contextmanager
def processes(folder: Path) -> Iterator[Place]:
    """Use worker processes of this computer."""
    yield Place("executor: processes\njobs: 2\nthreads: 1\n")


@contextmanager
def slurm(folder: Path) -> Iterator[Place]:
    """Start a SLURM; stop it at the end of the block."""
    from slurm_cluster import running_cluster, why_not

    if reason := why_not():
        raise Missing(reason)
    with running_cluster(folder, cpus=1, gpus=1) as cluster:
        yield Place("executor: slurm\narray: 2\npoll: 1s\n", environment=cluster.environment)


@contextmanager
def ray(folder: Path) -> Iterator[Place]:
    """Start a Ray; stop it at the end of the block."""
    from real_ray import real_ray, why_not

    if reason := why_not():
        raise Missing(reason)
    folder.mkdir()
    with real_ray(folder, nodes=2) as cluster:
        yield Place(f"executor: ray\naddress: {cluster.address}\n", cluster.command([]), cluster.environment)


PLACES = {"processes": processes, "slurm": slurm, "ray": ray}


def measured(name: str, place: Place, folder: Path, cells: int) -> list[object]:
    """Run the suite; return a row of the table."""
    (folder / f"{name}.yaml").write_text(place.options, encoding="utf-8")
    script = [sys.executable, "-c", "from metabench.cli import script; script()"]
    command = ["run", "suite.yaml", "--output", name, "--executor", f"{name}.yaml", "--device", "cpu"]
    begun, first = time.monotonic(), 0.0
    with open(folder / f"{name}.log", "wb") as log:
        environment = {**place.environment, "OMP_NUM_THREADS": "1"}
        whole = [*place.prefix, *script, *command]
        driver = subprocess.Popen(whole, cwd=folder, env=environment, stdout=log, stderr=log)
    while True:
        pid, status, usage = os.wait4(driver.pid, os.WNOHANG)
        if not first and any((folder / name).glob("cells/*.json")):
            first = time.monotonic() - begun
        if pid:
            break
        time.sleep(0.02)
    seconds = time.monotonic() - begun
    done = len(list((folder / name).glob("cells/*.json")))
    if status or done != cells:
        sys.exit(f"{name}: {done} of {cells} records\n{(folder / f'{name}.log').read_text(errors='replace')}")
    each, used = (seconds - first) / max(1, cells - 1), usage.ru_utime + usage.ru_stime
    return [name, first, each, seconds, used, usage.ru_maxrss / 1024, os.getloadavg()[0]]


def main() -> None:
    """Run the suite on each, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--tests", type=int, default=1, help="tests of each training, by their shots; one is a cell")
    parser.add_argument("--only", nargs="*", choices=PLACES, default=list(PLACES))
    given = parser.parse_args()
    table = []
    with tempfile.TemporaryDirectory(prefix="mb-") as name:  # short: Ray makes sockets in it
        folder = Path(name)
        seeds, shots = list(range(given.trainings)), list(range(1, given.tests + 1))
        (folder / "suite.yaml").write_text(SUITE.format(seeds=seeds, shots=shots), encoding="utf-8")
        for executor in given.only:
            try:
                with PLACES[executor](folder / f"of-{executor}") as place:
                    table.append(measured(executor, place, folder, given.trainings * given.tests))
            except Missing as reason:
                print(f"{executor} left out: {reason}", file=sys.stderr, flush=True)
    print(tabulate(table, HEADERS, tablefmt="github", floatfmt=("", ".1f", ".3f", ".1f", ".1f", ".0f", ".1f")))


if __name__ == "__main__":
    main()
