"""Load the datasets of a run, once per process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from metabench.api import Progress
from metabench.data.packing import DataRoots, LoadedDataset, load_splits
from metabench.planning.cells import Cell, Choice
from metabench.planning.plan import datasets_of
from metabench.registry.manager import PluginManager

__all__ = ["LoadedDataset", "load_dataset", "load_datasets"]


def load_dataset(
    choice: Choice, plugins: PluginManager, roots: DataRoots, device: torch.device, progress: Progress
) -> LoadedDataset:
    """Load a dataset, packing it first if needed, and move its images to the device.

    Raises:
        DataError: raw data is missing or damaged, or the cache is not writable.
    """
    dataset = plugins.build_dataset(choice.name, choice.params)
    loaded = load_splits(choice.name, dataset, roots, progress)
    on_device = {name: replace(split, images=split.images.to(device)) for name, split in loaded.splits.items()}
    return replace(loaded, splits=on_device)


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
