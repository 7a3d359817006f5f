"""Train metabench and a plain loop from the same weights on the same episodes.

`trainings.py` starts this script as a process. It prints losses and accuracies as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace

import torch
from contestants import EVALUATION_BATCH
from metabench_cells import CellWork
from plain_trainings import PLAIN
from prepared import Task

from metabench.api import Episodes
from metabench.engine.asking import predict
from metabench.machine.reproducible import derive_seed, deterministic

#: Seconds between two lines of progress.
_PROGRESS_SECONDS = 10.0


class PairedTraining:
    """Two implementations of a method, trained side by side.

    Args:
        method: label in `trainings.yaml`.
        seed: training seed.
        dtype: type of weights and images.
    """

    def __init__(self, method: str, seed: int, dtype: torch.dtype) -> None:
        self._work = CellWork(method, "omniglot", "float32", suite="trainings.yaml", seed=seed)
        self._plain = PLAIN[method](self._work.weights(), dtype)
        self._work.algorithm.to(dtype)
        self._batch = self._work.episodes_per_update
        self._seed, self._dtype = seed, dtype

    def step(self, number: int) -> tuple[float, float]:
        """Make one update of both; return their losses before it."""
        episodes = self._in_type(self._work.train.batch(number * self._batch, self._batch))
        torch.manual_seed(derive_seed(self._seed, f"train {number}"))
        with deterministic():
            ours = float(self._work.algorithm.train_step(episodes)["loss"])
            return ours, self._plain.step(_tasks(episodes))

    def accuracies(self, first: int, count: int) -> tuple[list[float], list[float]]:
        """Return the accuracies of both in some test episodes."""
        episodes = self._in_type(self._work.test.batch(first, count))
        self._work.algorithm.eval()
        with deterministic():
            ours = predict(self._work.algorithm, episodes, self._work.seed, first)
            theirs = torch.stack([self._plain.scores(task) for task in _tasks(episodes)])
        right = [(scores.argmax(dim=-1) == episodes.query_y).double().mean(dim=1) for scores in (ours, theirs)]
        return right[0].tolist(), right[1].tolist()

    def _in_type(self, episodes: Episodes) -> Episodes:
        return replace(episodes, support_x=episodes.support_x.to(self._dtype), query_x=episodes.query_x.to(self._dtype))


def _tasks(episodes: Episodes) -> list[Task]:
    parts = episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y
    return list(zip(*(part.unbind() for part in parts), strict=True))


def main() -> None:
    """Train one method with one seed, and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=PLAIN)
    parser.add_argument("seed", type=int)
    parser.add_argument("dtype", choices=("float32", "float64"))
    parser.add_argument("updates", type=int)
    parser.add_argument("episodes", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training = PairedTraining(arguments.method, arguments.seed, getattr(torch, arguments.dtype))
    told, losses = time.monotonic(), []
    for number in range(arguments.updates):
        losses.append(training.step(number))
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"  update {number + 1} of {arguments.updates}", file=sys.stderr, flush=True)
    accuracies: tuple[list[float], list[float]] = ([], [])
    for first in range(0, arguments.episodes, EVALUATION_BATCH):
        count = min(EVALUATION_BATCH, arguments.episodes - first)
        for side, more in zip(accuracies, training.accuracies(first, count), strict=True):
            side.extend(more)
    print(json.dumps({"losses": list(zip(*losses, strict=True)), "accuracies": accuracies}))


if __name__ == "__main__":
    main()
