"""Kills runs at random moments, and counts what was torn or lost.

python benchmarks/kills.py --kills 300

An undisturbed run of a suite of eight cells with `--jobs 2` gives the right results. Then the same suite is run into
another directory; at a random moment the run, one of its workers or both are killed (SIGKILL, a third of them after
SIGINT, some twice within a second), and the run is started again, until all kills are made; a last run ends in peace.

Counted are: records and per-episode results that cannot be read after a kill, finished cells that are gone after it,
tracebacks in any output, processes of a killed run that are alive ten seconds later, and cells whose per-episode
accuracies differ in the end from the undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from metabench.records.runs import Runs
from metabench.records.store import Store

SUITE = """\
name: kills
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 8, downsample: stride}}}
algorithms:
  protonet: {}
  maml: {params: {inner_lr: 0.5}, backbone: {norm: batch}}
  reptile: {params: {test_inner_steps: 5}, backbone: {norm: batch}, train: {shot: 2}}
  siamese: {params: {pairs: 32, units: 64}, train: {shot: 2}}
ways: [5]
shots: [1, 2]
queries: 5
train: {steps: 60, validate_every: 20, validation_episodes: 10}
eval: {episodes: 100}
"""
TRACEBACK = "Traceback (most recent call last)"
#: Seconds after a kill within which all processes of the run must have ended.
PATIENCE = 10.0


def main() -> None:
    """Run, kill and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    counts = dict.fromkeys(["kills", "torn", "lost", "tracebacks", "alive"], 0)
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "kills.yaml"
        suite.write_text(SUITE, encoding="utf-8")
        undisturbed, disturbed = Path(folder) / "undisturbed", Path(folder) / "disturbed"
        begun = time.perf_counter()
        started(suite, undisturbed).wait()
        whole = time.perf_counter() - begun
        round_number = 0
        while counts["kills"] < arguments.kills:
            output = disturbed / str(round_number)
            kept = finished(output)
            run = started(suite, output)
            try:
                _, errors = run.communicate(timeout=rng.uniform(0.3, whole))
            except subprocess.TimeoutExpired:
                counts["kills"] += killed(run, rng)
                _, errors = run.communicate()
            else:
                round_number += 1  # it ended before it was killed: the next run begins anew
            counts["tracebacks"] += errors.count(TRACEBACK)
            if TRACEBACK in errors:
                print(f"\n{errors[errors.index(TRACEBACK) :]}", file=sys.stderr)
            counts["alive"] += alive_after(run.pid, PATIENCE)
            after = finished(output)
            counts["torn"] += after.count(None)
            counts["lost"] += sum(cell not in after for cell in kept)
            print(f"\r{counts}", end="", file=sys.stderr, flush=True)
        for number in range(round_number + 1):
            started(suite, disturbed / str(number)).wait()
        different = sum(differences(undisturbed, disturbed / str(number)) for number in range(round_number + 1))
    print(f"\n{counts}; cells of {round_number + 1} directories that differ from the undisturbed run: {different}")


def started(suite: Path, output: Path) -> subprocess.Popen[str]:
    """Start a run of two cells at once in a process group of its own."""
    command: list[str | Path] = [
        Path(sys.executable).with_name("metabench"),
        "run",
        suite,
        "--jobs",
        "2",
        "--output",
        output,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def killed(run: subprocess.Popen[str], rng: random.Random) -> int:
    """Kill the run, a worker, or both; return the number of signals SIGKILL."""
    victims = [run.pid, *members(run.pid)]
    if rng.random() < 1 / 3:
        os.kill(run.pid, signal.SIGINT)
        time.sleep(rng.uniform(0, 0.5))
    kills = 0
    for victim in rng.sample(victims, min(len(victims), rng.choice([1, 1, 2]))):
        try:
            os.kill(victim, signal.SIGKILL)
            kills += 1
        except ProcessLookupError:
            continue
        time.sleep(rng.uniform(0, 1.0))
    if run.poll() is None:  # a worker was killed: end the run as well
        os.kill(run.pid, signal.SIGKILL)
        kills += 1
    return kills


def members(group: int) -> list[int]:
    """Return the other processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z" and int(path.parent.name) != group:
            found.append(int(path.parent.name))
    return found


def alive_after(group: int, seconds: float) -> int:
    """Return the number of processes of a group that are alive after some seconds."""
    deadline = time.monotonic() + seconds
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    return len(members(group))


def finished(output: Path) -> list[str | None]:
    """Return the finished cells of a run; None for each record that is torn."""
    store = Store(output)
    records = store.records() if output.exists() else []
    return [record.cell if Runs([(store, [record])]).invalid == [] else None for record in records]


def differences(one: Path, other: Path) -> int:
    """Return the number of cells whose per-episode accuracies differ, or that only one run has."""
    runs = [Runs.read([folder]) for folder in (one, other)]
    results = [{record.cell: run.values(record).tolist() for record in run.records} for run in runs]
    return sum(results[0].get(cell) != results[1].get(cell) for cell in {*results[0], *results[1]})


if __name__ == "__main__":
    main()
