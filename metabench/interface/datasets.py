"""`metabench.episodes`: the harness's episodes for any loop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imports torch
    from metabench.exchange.episode_sets import EpisodeSet


def episodes(
    dataset: str,
    *,
    way: int = 5,
    shot: int = 1,
    queries: int = 15,
    split: str = "test",
    seed: int = 0,
    count: int | None = None,
    params: Mapping[str, Any] | None = None,
    file: str | os.PathLike[str] | None = None,
    normalise: bool = True,
) -> EpisodeSet:
    """Return the episodes of a dataset, digit for digit those of the harness.

    They are those of a suite with this dataset, shape and ``eval.seed``, whatever it trains. The result is a
    `torch.utils.data.Dataset` by the number of the episode, for any loop and for a `DataLoader` with workers.

    Args:
        dataset: name of a dataset (``metabench list datasets``), or ``FILE.py:CLASS``.
        way: classes of an episode; of no use for a dataset without classes.
        shot: support images of each class.
        queries: queries of each class.
        split: ``"train"``, ``"val"`` or ``"test"``.
        seed: seed of the episodes.
        count: number of episodes; None means 600, or all of `file`.
        params: parameters of the dataset.
        file: file of the episodes (``eval.episodes_file``), which has way, shot and queries.
        normalise: whether images have the dataset's mean and standard deviation; else they are between 0 and 1.

    Raises:
        MetabenchError: the dataset is unknown, its data are missing, or it is too small for the episodes.

    Example:
        >>> import metabench
        >>> episodes = metabench.episodes("glyphs", way=5, shot=1, queries=3)
        >>> episodes
        <600 episodes: glyphs · 5-way 1-shot · test · seed 0>
        >>> support_x, support_y, query_x, query_y = episodes[0]
        >>> support_x.shape, support_y.tolist(), query_x.shape
        (torch.Size([5, 1, 28, 28]), [0, 1, 2, 3, 4], torch.Size([15, 1, 28, 28]))
        >>> len(episodes.classes(0))  # names of the classes behind the labels
        5
    """
    from metabench.cli.progress import pack_progress
    from metabench.exchange.asked_episodes import episodes_of_dataset
    from metabench.exchange.episode_sets import EpisodeSet
    from metabench.registry.manager import PluginManager

    place = None if file is None else Path(file)
    plugins = PluginManager.from_environment()
    test = episodes_of_dataset(plugins, dataset, params or {}, way, shot, queries, seed, count, place)
    with pack_progress() as progress:
        return EpisodeSet(test, split, normalise).loaded(progress)
