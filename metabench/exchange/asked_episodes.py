"""Choose episodes: of a dataset and a shape, or those of a suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metabench.data.episodes_files import read_episodes_file, shape_of
from metabench.data.sampler import EpisodeShape
from metabench.errors import UsageError, shown
from metabench.planning.cells import Cell, Choice, Testing
from metabench.registry.configs import complete_params
from metabench.registry.file_classes import absolute, is_local
from metabench.registry.manager import PluginManager

#: Number of episodes where nobody says one: the field's usual number for a table.
EPISODES = 600
#: Most sets of episodes that an error message lists.
_LISTED = 12


def episodes_of_dataset(
    plugins: PluginManager,
    dataset: str,
    params: Mapping[str, Any],
    way: int,
    shot: int,
    queries: int,
    seed: int,
    count: int | None = None,
    file: Path | None = None,
) -> Testing:
    """Return the episodes of a dataset, drawn as those of a suite are.

    Args:
        plugins: the provider of the classes.
        dataset: name of the dataset, or ``FILE.py:CLASS``.
        params: its parameters; the others have their defaults.
        way: N, of a dataset with classes.
        shot: support images of each class.
        queries: queries of each class.
        seed: seed of the episodes.
        count: number of episodes; None means `EPISODES`, or all of a file.
        file: file of the episodes (`metabench.data.episodes_files`), which has way, shot and queries; None draws them.

    Raises:
        DataError: the file cannot be read.
        PluginError: the dataset is unknown, or a parameter is wrong.
        UsageError: a number is too small, or larger than the file.
    """
    name = absolute(dataset, Path.cwd()) if is_local(dataset) else dataset
    built = plugins.build_dataset(name, params)
    makes_episodes = built.makes_episodes
    least = {"way": (way, 2), "shot": (shot, 1), "queries": (queries, 1), "seed": (seed, 0)}
    for setting, (value, smallest) in least.items():
        if value < smallest and not (setting == "way" and makes_episodes):
            raise UsageError(f"{setting} must be at least {smallest}, not {value}")
    shape, found = EpisodeShape(1 if makes_episodes else way, shot, queries), None
    if file is not None:
        found, episodes = read_episodes_file(file.absolute())
        shape = replace(shape_of(episodes), file=found.sha256)
        if count is not None and count > len(episodes):
            raise UsageError(f"{file.name} has {len(episodes)} episodes, not {count}")
        count = count or len(episodes)
    count = EPISODES if count is None else count
    if count < 2:
        raise UsageError(f"{count} episodes are too few: intervals need two or more")
    label = name.rpartition(":")[2] if is_local(name) else name
    return Testing(
        dataset=Choice(label, name, complete_params(type(built).Config, params)),
        shape=shape,
        seed=seed,
        episodes=count,
        inductive_episodes=min(200, count),
        task="regression" if makes_episodes else "classification",
        file=found,
    )


def episodes_of_cells(cells: Iterable[object], count: int | None = None) -> Testing:
    """Return the test episodes that the cells of a suite share.

    Args:
        cells: the chosen cells of the suite.
        count: number of episodes; None means that of the suite.

    Raises:
        UsageError: cells have different episodes, or are not few-shot cells.
    """
    few_shot = [cell for cell in cells if isinstance(cell, Cell)]
    if not few_shot:
        raise UsageError("the suite has no few-shot cells, and so no episodes")
    tests = {(cell.dataset.label, cell.shape, cell.test.seed): cell.test for cell in few_shot}
    if len(tests) > 1:
        raise UsageError(f"the suite has {len(tests)} sets of episodes: choose one by {_choices(list(tests.values()))}")
    (test,) = tests.values()
    most = test.at_most or test.episodes
    if count is not None and test.file is not None and count > most:
        raise UsageError(f"the suite tests {most} episodes of {test.file.path.name}, not {count}")
    return replace(test, episodes=count or most)


def _choices(tests: Sequence[Testing]) -> str:
    """Return the filters that choose each set of episodes, for a message."""
    filters = [
        f"--only dataset={shown(test.dataset.label)} --only way={test.shape.way} --only shot={test.shape.shot}"
        for test in tests
    ]
    return "; ".join(filters[:_LISTED]) + ("; …" if len(filters) > _LISTED else "")
