"""How long will a run take? Times a step and an episode of every cell, before the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from metabench.api import Split
from metabench.engine import build, evaluation_stream, training_stream
from metabench.measure import Stopwatch
from metabench.plan import Cell
from metabench.plugins import PluginManager


@dataclass(frozen=True)
class UnitCost:
    """What a cell's pieces cost on a device.

    Attributes:
        train_episode: seconds a training episode, the outer update included.
        test_episode: seconds a test episode.
    """

    train_episode: float
    test_episode: float

    def seconds(self, cell: Cell) -> float:
        """Return how long a cell of this cost should take in all."""
        train, test = cell.train, cell.test
        validations = -(-train.steps // train.validate_every) * train.validation_episodes
        # Testing includes the latency, and the probe for transduction: about fifty episodes.
        tested = validations + test.episodes + 50
        return train.steps * train.meta_batch * self.train_episode + tested * self.test_episode


def unit_cost(cell: Cell, splits: Mapping[str, Split], device: torch.device, plugins: PluginManager) -> UnitCost:
    """Time one outer update and one test episode of a freshly built algorithm, each after a warm-up."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        image_shape = tuple(splits["train"].images.shape[1:])
        algorithm = build(cell, image_shape, device, plugins)  # type: ignore[arg-type]
        train = training_stream(cell, splits, device)
        test = evaluation_stream(cell, splits, device)
        batch = min(cell.train.meta_batch, 4)
        stepping, predicting = Stopwatch(device), Stopwatch(device)
        for watch in (Stopwatch(device), stepping):
            with watch.running():
                algorithm.meta_step(train.batch(0, batch))
        for watch in (Stopwatch(device), predicting):
            drawn = test.batch(0, 1)
            with watch.running():
                algorithm.predict(drawn.support_x, drawn.support_y, drawn.query_x, drawn.way)
    return UnitCost(stepping.seconds / batch, predicting.seconds)
