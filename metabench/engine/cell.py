"""Train and test one cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from metabench.analysis.declared import measures_of
from metabench.api import Algorithm, Setup, Split
from metabench.data.sampler import EpisodeShape
from metabench.engine.advice import testing_memory, training_memory
from metabench.engine.outcome import Outcome, test
from metabench.engine.precision import autocast_of, tf32
from metabench.engine.progress import Watcher
from metabench.engine.streams import training_stream
from metabench.engine.training import train
from metabench.engine.trial import set_batchings
from metabench.machine.memory import PeakMemory
from metabench.machine.reproducible import derive_seed, deterministic, seed_generators
from metabench.planning.plan import Cell, check_cell, fits
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager


def build(cell: Cell, image_shape: tuple[int, int, int], device: torch.device, plugins: PluginManager) -> Algorithm:
    """Build the cell's algorithm and backbone from the cell's seed."""
    seed_generators(derive_seed(cell.seed, "initialise"))
    backbone_class = plugins.backbone_class(cell.backbone.name)
    algorithm_class = plugins.algorithm_class(cell.algorithm.name)
    backbone = backbone_class(validate_config(backbone_class.Config, cell.backbone.params), image_shape)
    backbone.autocast = autocast_of(cell.precision)
    setup = Setup(backbone, cell.shape.way, cell.train.shape.way, cell.train.steps)
    algorithm = algorithm_class(validate_config(algorithm_class.Config, cell.algorithm.params), setup)
    # On a CPU, convolutions of channels-last weights run up to three times faster.
    layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
    return algorithm.to(device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def image_shape_of(splits: Mapping[str, Split]) -> tuple[int, int, int]:
    """Return (C, H, W) of the images."""
    channels, height, width = splits["train"].images.shape[1:]
    return channels, height, width


def run_cell(
    cell: Cell,
    splits: Mapping[str, Split],
    device: torch.device,
    plugins: PluginManager,
    checkpoint: Path,
    watcher: Watcher,
    origin: Mapping[str, str] | None = None,
    shapes: Sequence[EpisodeShape] = (),
) -> Outcome:
    """Train a cell, or resume its checkpoint, and test it.

    Args:
        cell: the cell to run.
        splits: the splits ``train``, ``val`` and ``test`` of its dataset.
        device: the device that it runs on.
        plugins: the provider of the classes.
        checkpoint: the file to resume from and to write. The result does not depend on when a run was interrupted.
        watcher: sees the progress, and may ask to stop.
        origin: device, data and versions that the metrics depend on; a checkpoint of another origin is not used.
        shapes: test shapes of all cells that share the checkpoint (`metabench.planning.plan.Cell.training_id`); by
            default, the shape of this cell.

    Raises:
        CellFailed: a split is too small, the loss or a score is not finite, or memory is too small.
        Interrupted: `watcher` asked to stop.
        StoreError: a checkpoint cannot be written or read.
    """
    check_cell(cell, splits)
    origin = origin or {}
    memory = PeakMemory(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), deterministic(), tf32(cell.precision == "tf32"):
        with training_memory(cell):
            algorithm = build(cell, image_shape_of(splits), device, plugins)
            set_batchings(algorithm, training_stream(cell, splits, device).batch(0, min(2, cell.train.meta_batch)))
            # A cell that the data is too small for fails alone.
            shapes = [shape for shape in shapes or [cell.shape] if fits(shape, splits)]
            progress = train(cell, algorithm, splits, device, checkpoint, origin, shapes, memory, watcher)
        with testing_memory(cell):
            return test(cell, algorithm, splits, device, progress, memory, watcher, measures_of(plugins))
