"""The harness's episodes as a torch data set, for any training loop."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from metabench.api import Progress, SourceSplit, Split
from metabench.data.episodes_files import read_episodes_file
from metabench.data.order import episodes_key
from metabench.data.packing import DataRoots
from metabench.data.sampler import EpisodeIndices
from metabench.engine.streams import EpisodeStream, Stream, stream_of
from metabench.errors import DataError
from metabench.executors.loading import LoadedDataset, load_dataset
from metabench.planning.cells import Testing
from metabench.registry.manager import PluginManager
from metabench.text import counted, shape_text


class EpisodeTensors(NamedTuple):
    """One episode.

    Attributes:
        support_x: [S, C, H, W] float support images; [S, D] vectors.
        support_y: [S] labels 0 … N-1; [S, outputs] numbers of a regression.
        query_x: [M, C, H, W] float queries, in random order; [M, D] vectors.
        query_y: [M] labels; [M, outputs] numbers of a regression.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


class EpisodeSet(Dataset[EpisodeTensors]):
    """The episodes of a test, by number: digit for digit those on which the harness tests.

    A `torch.utils.data.DataLoader` may read it in workers, which open the packed data anew where they are spawned.

    Args:
        test: dataset, shape, seed and number of the episodes, and their file.
        split: the split that they are drawn from: ``"train"``, ``"val"`` or ``"test"``.
        normalise: whether images have the dataset's mean and standard deviation; else they are between 0 and 1.

    Attributes:
        test: as above.
        split: as above.
    """

    def __init__(self, test: Testing, split: str = "test", normalise: bool = True) -> None:
        self.test, self.split = test, split
        self._normalise = normalise
        self._data: LoadedDataset | None = None
        self._stream: Stream | None = None

    def loaded(self, progress: Progress = lambda done, total, name: None) -> EpisodeSet:
        """Load the data now, packing them first if needed; return the set itself.

        Raises:
            DataError: the data are missing or damaged, or have too few classes or images for the episodes.
            PluginError: no plugin provides the dataset.
        """
        if self._data is None:
            roots, plugins = DataRoots.from_environment(os.environ), PluginManager.from_environment()
            self._data = load_dataset(self.test.dataset, plugins, roots, torch.device("cpu"), progress)
        if self._stream is None:
            self._stream = self._streamed(self._data)
        return self

    @property
    def data(self) -> LoadedDataset:
        """Return the dataset."""
        data = self.loaded()._data
        assert data is not None, "it is loaded"
        return data

    @property
    def stream(self) -> Stream:
        """Return the stream of the episodes."""
        stream = self.loaded()._stream
        assert stream is not None, "it is loaded"
        return stream

    @property
    def key(self) -> str:
        """Return the key of the episodes: that of records with the same ones (``data.episodes``)."""
        split = self.data.splits[self.split]
        return episodes_key(split, self.split, self.test.shape, self.test.seed, self.data.test_content)

    def __len__(self) -> int:
        return self.test.episodes

    def __getitem__(self, number: int) -> EpisodeTensors:
        """Return an episode by its number.

        Raises:
            IndexError: there is no such episode.
        """
        if not -len(self) <= number < len(self):
            raise IndexError(f"there is no episode {number}: they are 0 … {len(self) - 1}")
        drawn = self.stream.batch(number % len(self), 1)
        return EpisodeTensors(drawn.support_x[0], drawn.support_y[0], drawn.query_x[0], drawn.query_y[0])

    def __iter__(self) -> Iterator[EpisodeTensors]:
        """Yield all episodes."""
        return (self[number] for number in range(len(self)))

    def indices(self, number: int) -> EpisodeIndices:
        """Return an episode as indices of the split's classes and images, a batch of one, in the order of its tensors.

        Raises:
            DataError: the episodes are those of a source, which have no classes.
        """
        if not isinstance(self.stream, EpisodeStream):
            raise DataError(f"the episodes of '{self.test.dataset.label}' are made, and have no classes of images")
        return self.stream.indices(number, 1)

    def classes(self, number: int) -> Sequence[str]:
        """Return the names of the classes behind the labels 0 … N-1 of an episode.

        Raises:
            DataError: as `indices`.
        """
        numbers, split = self.indices(number).classes[0], self.data.splits[self.split]
        assert isinstance(split, Split), "a source has no indices"
        return [split.class_names[c] for c in numbers]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the data: another process maps the packed file itself."""
        return {**self.__dict__, "_data": None, "_stream": None}

    def __repr__(self) -> str:
        shape = shape_text(self.test.shape.way, self.test.shape.shot)
        parts = [self.test.dataset.label, shape, self.split, f"seed {self.test.seed}"]
        return f"<{counted(len(self), 'episode')}: {' · '.join(parts)}>"

    def _streamed(self, data: LoadedDataset) -> Stream:
        """Return the stream of a loaded dataset.

        Raises:
            DataError: as `loaded`.
        """
        if self.split not in data.splits:
            raise DataError(f"'{self.test.dataset.label}' has no split '{self.split}': it has {', '.join(data.splits)}")
        split: Split | SourceSplit = data.splits[self.split]
        if isinstance(split, Split) and not self._normalise:
            split = replace(split, mean=(0.0,), std=(1.0,))
        file = self.test.file
        named = read_episodes_file(file.path, file.sha256)[1] if file else None
        try:
            return stream_of(split, self.test.shape, self.split, self.test.seed, torch.device("cpu"), named=named)
        except ValueError as error:
            raise DataError(f"'{self.test.dataset.label}', split {self.split}: {error}") from error
