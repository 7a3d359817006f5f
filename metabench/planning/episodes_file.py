"""The file of test episodes that a suite names."""

from __future__ import annotations

from pathlib import Path

from metabench.data.episodes_files import EpisodesFile, read_episodes_file, shape_of
from metabench.planning.suite import Suite, SuiteFile
from metabench.planning.suite_text import KeyPath

_PLACE = ("eval", "episodes_file")


def episodes_file_of(suite: Suite, file: SuiteFile) -> EpisodesFile | None:
    """Return the file of the test episodes, if its episodes are those that the suite tests; None without one.

    Raises:
        DataError: the file cannot be read, or an episode of it is wrong.
        SuiteError: way, shot or queries of its episodes are not the suite's, or it has too few episodes.
    """
    settings = suite.eval
    if settings.episodes_file is None:
        return None
    if not suite.ways:
        raise file.error(_PLACE, "the episodes of a regression are made, not named: remove this")
    path = Path(settings.episodes_file)
    found, episodes = read_episodes_file(path)
    shape = shape_of(episodes)
    if (suite.ways, suite.shots, suite.queries) != ([shape.way], [shape.shot], shape.queries):
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
    return found
