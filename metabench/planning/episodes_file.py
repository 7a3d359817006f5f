"""The file of test episodes that a suite names."""

from __future__ import annotations

from pathlib import Path

from metabench.data.episodes_files import EpisodesFile, read_episodes_file, shape_of
from metabench.data.sampler import EpisodeShape
from metabench.planning.suite import Suite
from metabench.planning.suite_file import SuiteFile
from metabench.planning.suite_text import KeyPath

_PLACE = ("eval", "episodes_file")


def fixed_episodes_of(suite: Suite, file: SuiteFile) -> tuple[EpisodesFile, EpisodeShape] | None:
    """Return the file of the test episodes, and their shape; None without one.

    Raises:
        DataError: the file cannot be read, or an episode of it is wrong.
        SuiteError: way, shot or queries of its episodes are not the suite's, or it has too few episodes.
    """
    settings = suite.eval
    if settings.episodes_file is None:
        return None
    if not suite.ways:
        raise file.error(_PLACE, "the episodes of a file have classes: say their ways, or remove this for a regression")
    path = Path(settings.episodes_file)
    found, episodes = read_episodes_file(path)
    shape = shape_of(episodes)
    if not shape.varies and (suite.ways, suite.shots, suite.queries) != ([shape.way], [shape.shot], shape.queries):
        raise file.error(
            _PLACE,
            f"the episodes of {path.name} are {shape}: write ways: [{shape.way}], shots: [{shape.shot}] and queries: "
            f"{shape.queries}",
        )
    wanted: dict[KeyPath, int] = {("eval", "episodes"): settings.episodes}
    if settings.until:
        wanted["eval", "until", "at_most"] = settings.until.at_most
    for place, count in wanted.items():
        if count > len(episodes):
            raise file.error(
                place, f"{path.name} has {len(episodes)} episodes, not {count}: write {place[-1]}: {len(episodes)}"
            )
    return found, shape
