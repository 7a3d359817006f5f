"""Runs of small suites by the command line, here or in the namespace of a Ray, and their records."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from real_ray import RealRay

from metabench.contracts import Record, Store
from metabench.files import write_whole

#: Cells of about a second, one a training seed.
SUITE = """\
name: small
datasets:
  glyphs: {}
backbones:
  conv4: {params: {channels: 2, downsample: stride}}
algorithms:
  protonet: {}
ways: [2]
shots: [1]
queries: 2
train: {steps: 60, validate_every: 20, validation_episodes: 3}
eval: {episodes: 10}
"""


class Run:
    """A run of a suite, which may be killed and started again.

    Args:
        folder: folder for its files.
        suite: the suite.
        options: options of the command.
        ray: the Ray that it joins; None runs it on this computer, one thread a job.
    """

    def __init__(self, folder: Path, suite: str, options: Sequence[str], ray: RealRay | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "suite.yaml", suite.encode())
        here = "executor: processes\njobs: 2\nthreads: 1\n"
        there = "" if ray is None else f"executor: ray\naddress: {ray.address}\n"
        write_whole(folder / "where.yaml", (there or here).encode())
        command = [
            str(Path(sys.executable).with_name("metabench")),
            "run",
            "suite.yaml",
            "--output",
            "out",
            "--executor",
            "where.yaml",
        ]
        self._command = [*command, *options] if ray is None else ray.command([*command, *options])
        self._environment = {**(dict(os.environ) if ray is None else ray.environment), "OMP_NUM_THREADS": "1"}
        self._folder, self._errors = folder, folder / "errors.txt"
        self.store = Store(folder / "out")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the driver, which may be killed."""
        with open(self._errors, "ab") as errors, open(self._folder / "printed.txt", "ab") as printed:
            return subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=printed, stderr=errors
            )

    def finish(self, seconds: float) -> int:
        """Run it; return the exit code."""
        return self.start().wait(seconds)

    @property
    def records(self) -> dict[str, Record]:
        """Return the records of its cells; each is whole, and agrees with its per-episode results."""
        return {record.cell: record for record in self.store.records()}

    @property
    def count(self) -> int:
        """Return the number of records so far."""
        return len(list((self.store.path / "cells").glob("*.json")))

    @property
    def errors(self) -> str:
        """Return what its drivers have said."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    @property
    def digits(self) -> dict[str, list[float]]:
        """Return the accuracies of all episodes by cell."""
        return {cell: self.store.episodes(record).figures["accuracy"].tolist() for cell, record in self.records.items()}
