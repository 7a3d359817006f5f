"""A cell of `suite.yaml`, built as the harness builds it: algorithm and episodes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from metabench.api import OptimisedAlgorithm, Split
from metabench.data.packing import DataRoots, load_splits
from metabench.engine.cell import build, image_shape_of
from metabench.engine.streams import evaluation_stream, training_stream
from metabench.machine.device import choose_device
from metabench.planning.plan import Cell, make_plan
from metabench.planning.suite import read_suite, resolve
from metabench.registry.manager import PluginManager


def planned(suite: Path, profile: str | None, plugins: PluginManager) -> list[Cell]:
    """Return the cells of a suite; None is its default profile."""
    return make_plan(*resolve(read_suite(suite), profile), plugins)


def splits_of(cell: Cell, plugins: PluginManager) -> Mapping[str, Split]:
    """Return the images of a cell's dataset."""
    source = plugins.build_dataset(cell.dataset.name, cell.dataset.params)
    roots = DataRoots.from_environment(os.environ)
    splits, _ = load_splits(cell.dataset.name, source, roots, lambda done, total, what: None)
    return splits


class CellWork:
    """What the harness has in hand when it trains or tests a cell.

    Attributes:
        algorithm: freshly built.
        train: its training episodes.
        test: its test episodes.
        seed: of both.

    Args:
        algorithm: a label of `suite.yaml`.
        dataset: a label of `suite.yaml`.
        precision: of the backbone, as a suite would say it: ``float32``, ``tf32`` or ``bf16``.
        device: where everything is; by default the CPU.
    """

    def __init__(self, algorithm: str, dataset: str, precision: str, device: torch.device | None = None) -> None:
        plugins = PluginManager.from_environment()
        cells = planned(Path(__file__).with_name("suite.yaml"), None, plugins)
        wanted = (algorithm, dataset)
        (cell,) = (cell for cell in cells if (cell.algorithm.label, cell.dataset.label) == wanted)
        cell = replace(cell, precision=precision)
        splits = splits_of(cell, plugins)
        device = device or choose_device("cpu")
        self.algorithm = cast(OptimisedAlgorithm, build(cell, image_shape_of(splits), device, plugins))
        self.train = training_stream(cell, splits, device)
        self.test = evaluation_stream(cell, splits, device)
        self.seed = cell.test.seed

    def load(self, *modules: nn.Module) -> None:
        """Take the weights of modules that name them as metabench does."""
        given = {name: value for module in modules for name, value in module.state_dict().items()}
        with torch.no_grad():
            for name, value in self.algorithm.state_dict().items():
                # A backbone in another precision is wrapped: its weights have one more prefix.
                plain = (
                    name.replace("backbone.", "")
                    .replace("context.support_lstm.", "")
                    .replace("context.query_lstm.", "")
                )
                value.copy_(given.pop(plain))
        if given:
            raise ValueError(f"metabench has no weights called {', '.join(given)}")
