"""Build algorithms and episodes of a suite as the engine does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from metabench.api import Split
from metabench.data.packing import DataRoots, load_splits
from metabench.engine.learner import build_tested
from metabench.engine.streams import evaluation_stream, training_stream
from metabench.engine.trial import set_batchings
from metabench.machine.device import choose_device
from metabench.planning.cells import Cell
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import read_suite, resolve
from metabench.registry.manager import PluginManager


def planned(suite: Path, profile: str | None, plugins: PluginManager) -> list[Cell]:
    """Return a suite's cells; None means the default profile."""
    return make_plan(*resolve(read_suite(suite), profile), plugins)


def splits_of(cell: Cell, plugins: PluginManager) -> Mapping[str, Split]:
    """Return the splits of a cell's dataset."""
    source = plugins.build_dataset(cell.dataset.name, cell.dataset.params)
    roots = DataRoots.from_environment(os.environ)
    splits = load_splits(cell.dataset.name, source, roots, lambda done, total, what: None).splits
    return splits


class CellWork:
    """The algorithm and episodes of one cell.

    Args:
        algorithm: label in the suite.
        dataset: label in the suite.
        precision: precision of the backbone: ``float32``, ``tf32`` or ``bf16``.
        device: device of algorithm and episodes; None means the CPU.
        suite: name of the suite's file in this folder.
        seed: training seed.

    Attributes:
        algorithm: the untrained algorithm.
        train: the training episodes.
        test: the test episodes.
        seed: seed of the test, also used for training.
        episodes_per_update: number of training episodes of an outer update.
    """

    def __init__(
        self,
        algorithm: str,
        dataset: str,
        precision: str,
        device: torch.device | None = None,
        suite: str = "suite.yaml",
        seed: int = 0,
    ) -> None:
        plugins = PluginManager.from_environment()
        cells = planned(Path(__file__).with_name(suite), None, plugins)
        wanted = (algorithm, dataset, seed)
        (cell,) = (cell for cell in cells if (cell.algorithm.label, cell.dataset.label, cell.seed) == wanted)
        cell = replace(cell, training=replace(cell.training, precision=precision))
        splits = splits_of(cell, plugins)
        device = device or choose_device("cpu")
        self.algorithm = build_tested(cell, splits, device, plugins)
        self.train = training_stream(cell.training, splits, device)
        schedule = cell.training.schedule
        assert schedule is not None, "every cell is trained"
        self.episodes_per_update = schedule.batch
        set_batchings(self.algorithm, self.train.batch(0, min(2, schedule.batch)))
        self.test = evaluation_stream(cell, splits, device)
        self.seed = cell.test.seed

    def load(self, *modules: nn.Module) -> None:
        """Copy the weights of modules with metabench's parameter names.

        Raises:
            ValueError: the algorithm has no weights of these names.
        """
        weights = {name: value for module in modules for name, value in module.state_dict().items()}
        with torch.no_grad():
            for name, value in self.algorithm.state_dict().items():
                value.copy_(weights.pop(_plain_name(name)))
        if weights:
            raise ValueError(f"metabench has no weights called {', '.join(weights)}")

    def weights(self) -> dict[str, Tensor]:
        """Return the weights, with the names of a plain network."""
        return {_plain_name(name): value for name, value in self.algorithm.state_dict().items()}


def _plain_name(name: str) -> str:
    # The weights of a backbone in another precision have one more prefix, from its wrapper.
    return name.replace("backbone.", "").replace("context.support_lstm.", "").replace("context.query_lstm.", "")
