"""Load the datasets of a run, once per process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from metabench.api import Progress, Rows, SourceSplit, Split
from metabench.data.packing import DataRoots, LoadedDataset, load_splits
from metabench.machine.memory import free_memory
from metabench.planning.cells import Cell, Choice
from metabench.planning.fitting import datasets_of
from metabench.registry.manager import PluginManager

#: Share of a GPU's free memory that the images of one split may take; of larger ones, each batch is copied.
_SHARE = 0.25

__all__ = ["LoadedDataset", "load_dataset", "load_datasets"]


def load_dataset(
    choice: Choice, plugins: PluginManager, roots: DataRoots, device: torch.device, progress: Progress
) -> LoadedDataset:
    """Load a dataset, packing it first if needed; move its images to a GPU that has the memory.

    Raises:
        DataError: raw data is missing or damaged, or the cache is not writable.
    """
    dataset = plugins.build_dataset(choice.name, choice.params)
    loaded = load_splits(choice.name, dataset, roots, progress)
    if device.type == "cpu":  # where a worker maps the images, and does not copy them
        return loaded
    return replace(loaded, splits={name: _on_device(split, device) for name, split in loaded.splits.items()})


def _on_device(split: Split | SourceSplit, device: torch.device) -> Split | SourceSplit:
    return replace(split, images=_moved(split, device)) if isinstance(split, Split) else split


def _moved(split: Split, device: torch.device) -> Rows:
    """Return the images of a split on a GPU, unless they would take most of its memory."""
    free = free_memory(device)
    return split.rows if free is not None and split.rows.nbytes > free * _SHARE else split.rows.to(device)


def load_datasets(
    cells: Sequence[Cell],
    plugins: PluginManager,
    roots: DataRoots,
    device: torch.device,
    progress: Callable[[], AbstractContextManager[Progress]],
) -> dict[str, LoadedDataset]:
    """Return the datasets of the cells by label.

    Args:
        cells: the cells that will run.
        plugins: the provider of the classes.
        roots: folders of raw data and packs.
        device: the device that will hold the images.
        progress: opens a progress display for packing one dataset.

    Raises:
        DataError: raw data is missing or damaged, or the cache is not writable.
    """
    datasets: dict[str, LoadedDataset] = {}
    for label, choice in datasets_of(cells).items():
        with progress() as report:
            datasets[label] = load_dataset(choice, plugins, roots, device, report)
    return datasets
