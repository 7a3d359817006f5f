"""Time the contestants of a line in turns.

Each contestant has its own process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lines import BFLOAT16, MATMUL, METABENCH, Entrant, Line

#: Pause between two turns: OpenMP threads spin for a while before they sleep, and would slow the next contestant.
PAUSE_SECONDS = 0.3
#: Number of episodes for the accuracies of evaluations.
ACCURACY_EPISODES = 200


class WorkerError(Exception):
    """A worker failed to start, or exited."""


@dataclass(frozen=True)
class Conditions:
    """Settings shared by all workers.

    Attributes:
        python: interpreter of the environment.
        data: folder with the data of `prepared`.
        threads: torch threads of each worker.
        seconds: duration of a turn.
        rounds: number of rounds of a line.
    """

    python: Path
    data: Path
    threads: int
    seconds: float
    rounds: int

    def environ(self) -> dict[str, str]:
        """Return the environment variables of the workers."""
        threads = str(self.threads)
        return {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


@dataclass
class LineResult:
    """The measurements of a line.

    Attributes:
        line: the line.
        rates: pieces of work per second in each round, by label; labels that failed in any round are left out.
        introductions: check, accuracies and FLOP of each label, from before the rounds.
        problems: reason of each entrant that failed.
    """

    line: Line
    rates: dict[str, list[float]] = field(default_factory=dict)
    introductions: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def ratios(self, label: str, other: str) -> list[float]:
        """Return the rate of `label` over `other`, by round.

        The result is empty where one of them has no rates.
        """
        return [a / b for a, b in zip(self.rates.get(label, []), self.rates.get(other, []), strict=False)]

    def matmul_shares(self) -> list[float]:
        """Return metabench's share of the matrix product's FLOP/s, by round."""
        flops = self.introductions.get(METABENCH, {}).get("flops")
        return [flops * ratio for ratio in self.ratios(METABENCH, MATMUL)] if flops else []

    def check_difference(self, label: str) -> float | None:
        """Return the largest difference from the reference's check.

        For predicted labels, return the share that differs. Returns None where one of them has no check.
        """
        reference = self.introductions.get(self.line.reference or "", {}).get("check")
        check = self.introductions.get(label, {}).get("check")
        if reference is None or check is None:
            return None
        pairs = list(zip(check, reference, strict=True))
        if self.line.compares_labels:
            return sum(a != b for a, b in pairs) / len(pairs)
        return max(abs(a - b) for a, b in pairs)

    @property
    def peers(self) -> list[str]:
        """Return the labels of the other libraries."""
        return [label for label in self.rates if label not in (METABENCH, BFLOAT16, MATMUL)]


class _Worker:
    """Controls the process of one entrant."""

    def __init__(self, entrant: Entrant, conditions: Conditions, stack: ExitStack) -> None:
        self.entrant = entrant
        self._log = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        described = {
            "factory": entrant.factory,
            "arguments": dict(entrant.arguments),
            "threads": conditions.threads,
            "data": str(conditions.data),
            "accuracy_episodes": ACCURACY_EPISODES,
        }
        self._process = subprocess.Popen(
            [conditions.python, Path(__file__).with_name("worker.py"), json.dumps(described)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=conditions.environ(),
        )
        stack.callback(self._end)

    def work(self, seconds: float) -> float:
        """Let the process work; return its rate per second.

        Raises:
            WorkerError: the process failed or exited.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"seconds": seconds}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise WorkerError(self._last_words()) from None
        answer = self.answer()
        return float(answer["done"] / answer["seconds"])

    def answer(self) -> dict[str, Any]:
        """Wait for the next reply of the process.

        Raises:
            WorkerError: the process failed or exited.
        """
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        if not text:
            raise WorkerError(self._last_words())
        answer: dict[str, Any] = json.loads(text)
        if "problem" in answer:
            raise WorkerError(answer["problem"])
        return answer

    def _last_words(self) -> str:
        self._process.wait(timeout=60)
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):  # the process has exited already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def run_line(line: Line, conditions: Conditions, missing: Mapping[str, str]) -> LineResult:
    """Time the contestants of a line in turns.

    Args:
        line: the line.
        conditions: settings shared by all workers.
        missing: reason of each package that is not installed; its entrants are skipped.
    """
    result = LineResult(line)
    with ExitStack() as stack:
        workers = _start(result, conditions, missing, stack)
        for number in range(conditions.rounds):
            _tell(f"{line.name}: round {number + 1} of {conditions.rounds}")
            turn = number % max(1, len(workers))
            _run_round(result, workers[turn:] + workers[:turn], conditions.seconds)
            workers = [worker for worker in workers if worker.entrant.detail not in result.problems]
    return result


def _start(result: LineResult, conditions: Conditions, missing: Mapping[str, str], stack: ExitStack) -> list[_Worker]:
    """Start the workers one after the other, warm-up included."""
    workers = []
    for entrant in result.line.entrants:
        if entrant.package in missing:
            continue  # the notes below the table list missing packages
        _tell(f"{result.line.name}: starting {entrant.detail}")
        worker = _Worker(entrant, conditions, stack)
        try:
            result.introductions[entrant.label] = worker.answer()
            workers.append(worker)
        except WorkerError as error:
            result.problems[entrant.detail] = str(error)
    return workers


def _run_round(result: LineResult, workers: Sequence[_Worker], seconds: float) -> None:
    rates: dict[str, float] = {}
    for worker in workers:
        time.sleep(PAUSE_SECONDS)
        label = worker.entrant.label
        try:
            rates[label] = max(rates.get(label, 0.0), worker.work(seconds))
        except WorkerError as error:
            result.problems[worker.entrant.detail] = str(error)
    # Ratios pair rates by round: drop a label that failed in a round, so that its later rounds are not shifted.
    for label in {worker.entrant.label for worker in workers} - set(rates):
        result.rates.pop(label, None)
    for label, rate in rates.items():
        result.rates.setdefault(label, []).append(rate)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
