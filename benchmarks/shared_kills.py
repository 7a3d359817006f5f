"""Kills processes that share an output directory, at random moments, and counts from their logs what was lost or twice.

python benchmarks/shared_kills.py --processes 4 --kills 25

Some processes run the same jobs into one directory, as `metabench run --share` does: its session, its loop, its
workers and their folders, in forks of this process, so that a start takes milliseconds. Each of them is killed by
SIGKILL so often, half of the times with its worker, as when a computer dies, and started again. The jobs are trainings
of `tests/counting.py`: each step and each test adds a line to a log.

Counted are: cells without a right record; cells whose test is counted more than once (`looks.json`); tests that ran
again although their result was on disk, and those that died before it was; trainings of which two processes made steps
at once; and steps that were made again beyond those since the last checkpoint, and within them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from counting import CountedWork, Counting, Silent, many_cells, values_of
from metabench.contracts import Condition, Executor, ExecutorConfig, Resources, RunOptions, Ticket
from metabench.executors.driver import run_work
from metabench.executors.harvest import harvest
from metabench.executors.job_folder import JobFolder
from metabench.executors.members import joined
from metabench.executors.sharing import Sharing
from metabench.executors.worker import work
from metabench.records.store import Store
from metabench.registry.manager import PluginManager

#: What must not be.
_BAD = ("lost", "counted_twice", "tested_twice", "at_once", "steps_beyond_checkpoint")


class Forks(Executor):
    """Workers that are forks of this process, and end with it."""

    def __init__(self, config: ExecutorConfig) -> None:
        self.config = config
        self._conditions: dict[str, Condition] = {}

    def slots(self, needs: Resources) -> int:
        """See `metabench.contracts.Executor`."""
        return 1

    def submit(self, tickets: Sequence[Ticket]) -> list[str]:
        """See `metabench.contracts.Executor`."""
        return [self._start(ticket) for ticket in tickets]

    def alive(self, handles: Sequence[str]) -> Mapping[str, Condition]:
        """See `metabench.contracts.Executor`."""
        for handle in handles:
            ended, status = (0, 0) if handle in self._conditions else os.waitpid(int(handle), os.WNOHANG)
            if ended:
                self._conditions[handle] = _condition(os.waitstatus_to_exitcode(status))
        return {handle: self._conditions.get(handle, Condition("running")) for handle in handles}

    def cancel(self, handles: Sequence[str]) -> None:
        """See `metabench.contracts.Executor`."""
        for handle in handles:
            if handle not in self._conditions:
                os.kill(int(handle), signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """See `metabench.contracts.Executor`."""
        time.sleep(seconds / 4)

    def _start(self, ticket: Ticket) -> str:
        parent, child = os.getpid(), os.fork()
        if child:
            return str(child)
        asked: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
        os._exit(work(JobFolder(ticket.folder), ticket.attempt, lambda: bool(asked) or os.getppid() != parent))


def _condition(code: int) -> Condition:
    if code == 0:
        return Condition("ended")
    reason = "its process was killed (signal 9)" if code == -signal.SIGKILL else f"its process ended (exit code {code})"
    return Condition("died", reason, by_machine=code == -signal.SIGKILL)


def run_shared(jobs: Sequence[Counting], output: Path, plugins: PluginManager) -> int:
    """Run jobs as one of several processes; return the exit code, 1 where a cell has failed."""
    store = Store(output)
    with joined(output, {"the jobs": str(len(jobs))}, lambda: _tidy(store)) as members:
        counted = CountedWork(jobs, store.records_by_name())
        sharing = Sharing(members, store, Silent())
        options = RunOptions(executor=Forks(ExecutorConfig()), executor_name="forks")
        records = run_work(counted, plugins, store, Silent(), options, sharing)
    return int(any(record.status == "failed" for record in records))


def _tidy(store: Store) -> None:
    store.clear_leftovers()
    harvest(store)


def started(jobs: Sequence[Counting], output: Path, plugins: PluginManager) -> int:
    """Fork a process that runs jobs, in a process group of its own; return its number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        code = run_shared(jobs, output, plugins)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


@dataclass
class Victim:
    """One of the processes: its number, when it is killed, and how often it was."""

    pid: int
    kill_at: float
    kills: int = 0
    codes: list[int] = field(default_factory=list)


def kill_at_random(
    jobs: Sequence[Counting], output: Path, processes: int, kills: int, seed: int, plugins: PluginManager
) -> list[Victim]:
    """Run jobs by some processes, each of which is killed so often; return them when they have ended."""
    rng = random.Random(seed)
    victims = [Victim(started(jobs, output, plugins), _later(rng)) for _ in range(processes)]
    open_victims = list(victims)
    while open_victims:
        time.sleep(0.02)
        for victim in list(open_victims):
            ended, status = os.waitpid(victim.pid, os.WNOHANG)
            if ended:
                victim.codes.append(os.waitstatus_to_exitcode(status))
                open_victims.remove(victim)
            elif victim.kills < kills and time.monotonic() > victim.kill_at:
                whole = rng.random() < 0.5
                (os.killpg if whole else os.kill)(victim.pid, signal.SIGKILL)
                os.waitpid(victim.pid, 0)
                victim.kills += 1
                victim.pid, victim.kill_at = started(jobs, output, plugins), _later(rng)
    return victims


def _later(rng: random.Random) -> float:
    return time.monotonic() + rng.uniform(0.2, 2.5)


def counted(jobs: Sequence[Counting], output: Path, folder: Path) -> dict[str, int]:
    """Return the counts of what was lost, twice or at once."""
    counts = Counter(dict.fromkeys([*_BAD, "tests_lost", "steps", "steps_lost"], 0))
    store = Store(output)
    records = store.records_by_name()
    for job in jobs:
        for cell in job.cells:
            record = records.get(cell.id)
            right = record is not None and record.status == "ok" and store.is_complete(record)
            values = store.episodes(record).figures["score"].tolist() if right and record else []
            counts["lost"] += values != values_of(cell).tolist()
            counts["counted_twice"] += bool(record and record.looks != 1)
        lines = [line.split() for line in (folder / f"{job.key}.log").read_text().splitlines()]
        kept: set[str] = set()
        begun: set[str] = set()
        for what, number, _ in lines:
            if what == "test":
                counts["tested_twice"] += number in kept
                counts["tests_lost"] += number in begun - kept
                begun.add(number)
            elif what == "kept":
                kept.add(number)
        steps = [(int(number), pid) for what, number, pid in lines if what == "step"]
        counts["steps"] += len(steps)
        counts["steps_lost"] += len(steps) - job.steps
        gone: set[str] = set()
        for (last, before), (first, after) in pairwise(steps):
            if after != before:
                gone.add(before)
                counts["steps_beyond_checkpoint"] += max(0, last // job.every * job.every - first)
            counts["at_once"] += after in gone
    return dict(counts)


def main() -> int:
    """Run, kill and count; the exit code is 1 where something was lost, twice or at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=25, help="of each process")
    parser.add_argument("--trainings", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--broken", type=Path, metavar="FOLDER", help="kill none; 200 cells of which five are broken")
    arguments = parser.parse_args()
    plugins = PluginManager.from_environment()
    if arguments.broken:
        output = arguments.broken / "out"
        victims = kill_at_random(many_cells(arguments.broken, 0.02), output, arguments.processes, 0, 0, plugins)
        print(json.dumps({"codes": [victim.codes for victim in victims]}))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder, begun = Path(name), time.monotonic()
        jobs = [
            Counting.of(f"training-{number}", 3, folder=folder, steps=40, every=5, seconds=0.04)
            for number in range(arguments.trainings)
        ]
        output = folder / "out"
        victims = kill_at_random(jobs, output, arguments.processes, arguments.kills, arguments.seed, plugins)
        counts = counted(jobs, output, folder)
        seconds = round(time.monotonic() - begun)
    kills, codes = [victim.kills for victim in victims], [victim.codes for victim in victims]
    print(json.dumps({"kills": kills, "codes": codes, "seconds": seconds, "cells": 3 * len(jobs), **counts}))
    return int(any(counts[name] for name in _BAD) or any(code != [0] for code in codes))


if __name__ == "__main__":
    sys.exit(main())
