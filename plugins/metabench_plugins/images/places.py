"""The place that a parameter names: in METABENCH_DATA, or in the current folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from metabench.api import DataError


def places(path: str, sources: Sequence[Path]) -> list[Path]:
    """Return the places that a path may mean, in the order of the search."""
    given = Path(path).expanduser()
    return [given] if given.is_absolute() else [*(source / given for source in sources), given.absolute()]


def existing_place(
    path: str, sources: Sequence[Path], parameter: str, accepts: Callable[[Path], bool] = Path.exists
) -> Path:
    """Return the first place of a path that is there.

    Args:
        path: the value of the parameter.
        sources: the folders of METABENCH_DATA.
        parameter: name of the parameter, for the message.
        accepts: whether a place will do.

    Raises:
        DataError: there is none.
    """
    searched = places(path, sources)
    place = next(filter(accepts, searched), None)
    if place is None:
        raise DataError(
            f"there is no folder {' and no folder '.join(map(str, searched))}: correct the parameter `{parameter}`, or "
            "set METABENCH_DATA to the folder that holds it. `metabench run quickstart` needs no data"
        )
    return place


def root_of(path: Path, sources: Sequence[Path]) -> str:
    """Return a place as a suite names it: relative to the source that holds it, or absolute."""
    inside = next((source for source in sources if source.resolve() in path.resolve().parents), None)
    return str(path) if inside is None else path.resolve().relative_to(inside.resolve()).as_posix()
