"""Ask the datasets which of them reads a file or folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from metabench.data.packing import DataRoots, dataset_files
from metabench.errors import InvalidData, MetabenchError, PluginError, in_one_line
from metabench.registry.manager import PluginManager

if TYPE_CHECKING:  # imports torch
    from metabench.api import Dataset, Inspection, Progress


def dataset_classes(plugins: PluginManager) -> dict[str, type[Dataset]]:
    """Return the importable classes of datasets by name; sources of episodes are left out."""
    return dict(_classes(plugins))


def inspect_path(
    path: Path, classes: Mapping[str, type[Dataset]], roots: DataRoots, progress: Progress
) -> dict[str, Inspection]:
    """Return the descriptions of a file or folder, by the name of the dataset that reads it.

    Datasets that read any images are asked if no other one recognises it.

    Args:
        path: an absolute path.
        classes: the classes of the datasets, by name.
        roots: the directories of raw data.
        progress: told of the progress.

    Raises:
        DataError: a dataset recognises the files and cannot read them, or its class fails.
    """
    for any_images in (False, True):
        found = {
            name: inspection
            for name, cls in classes.items()
            if cls.reads_any_images == any_images
            and (inspection := _inspected(name, cls, path, roots, progress)) is not None
        }
        if found:
            return found
    return {}


def _classes(plugins: PluginManager) -> Iterator[tuple[str, type[Dataset]]]:
    from metabench.api import Dataset

    for name in plugins.datasets():
        try:
            cls = plugins.dataset_class(name)
        except PluginError:  # `metabench list` reports it
            continue
        if issubclass(cls, Dataset):
            yield name, cls


def _inspected(name: str, cls: type[Dataset], path: Path, roots: DataRoots, progress: Progress) -> Inspection | None:
    from metabench.api import Inspection

    try:
        found: object = cls.inspect(path, dataset_files(name, roots), progress)
    except MetabenchError:
        raise
    except Exception as error:
        raise InvalidData(f"the dataset '{name}' failed in inspect(): {in_one_line(error)}") from error
    if found is not None and not isinstance(found, Inspection):
        raise InvalidData(f"the dataset '{name}', inspect(): the result must be an Inspection or None")
    return found
