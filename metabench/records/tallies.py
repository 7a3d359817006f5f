"""Totals of a test by class, by pair of classes and by confidence, within the file of per-episode results."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from metabench.errors import StoreError, in_one_line
from metabench.files import read_regular
from metabench.text import visible

if TYPE_CHECKING:  # reading records must not import numpy
    import numpy as np
    import numpy.typing as npt

#: Folder of the arrays in the archive.
_FOLDER = "tallies/"
#: Most bytes of an array.
_MOST = 2**26


@dataclass(frozen=True)
class Tallies:
    """Totals over all queries of a test.

    Attributes:
        names: names of the C classes that had queries.
        episodes: [C] number of episodes with queries of each class.
        accuracy: [C] mean over these episodes of the accuracy on the queries of the class.
        confusions: [P, 3] a class, another class that its queries were taken for, and the number of these queries.
        reliability: [2, 3, K] of the scores as they are, then at the temperature of the cell: number of queries, sum of
            their confidences and number of correct ones, in K bins of the confidence of equal width. All are 0 without
            a temperature.
    """

    names: Sequence[str]
    episodes: npt.NDArray[np.int64]
    accuracy: npt.NDArray[np.float64]
    confusions: npt.NDArray[np.int64]
    reliability: npt.NDArray[np.float64]

    def followed_by(self, later: Tallies) -> Tallies:
        """Return these totals with those of the episodes after them."""
        import numpy as np

        names = list(dict.fromkeys([*self.names, *later.names]))
        place = {name: number for number, name in enumerate(names)}
        episodes, correct = np.zeros(len(names), np.int64), np.zeros(len(names))
        pairs: dict[tuple[int, int], int] = {}
        for part in (self, later):
            places = np.array([place[name] for name in part.names], np.int64)
            episodes[places] += part.episodes
            correct[places] += part.accuracy * part.episodes
            for true, predicted, count in part.confusions.tolist():
                pair = int(places[true]), int(places[predicted])
                pairs[pair] = pairs.get(pair, 0) + count
        confusions = np.array([[*pair, count] for pair, count in pairs.items()], np.int64).reshape(-1, 3)
        reliability = self.reliability + later.reliability
        return Tallies(names, episodes, correct / episodes, confusions, reliability)


def tally_arrays(tallies: Tallies) -> dict[str, Any]:
    """Return the arrays by name of their member of the archive."""
    import numpy as np

    return {f"{_FOLDER}{name}": np.asarray(value) for name, value in vars(tallies).items()}


def read_tallies(path: Path) -> Tallies | None:
    """Return the totals of a cell; None if its file has none, as those of earlier versions.

    Raises:
        StoreError: they are missing or damaged.
    """
    import numpy as np

    try:
        with ZipFile(io.BytesIO(read_regular(path))) as file:
            members = {name: f"{_FOLDER}{name}.npy" for name in Tallies.__dataclass_fields__}
            if not set(members.values()) <= set(file.namelist()):
                return None
            too_large = [member for member in members.values() if file.getinfo(member).file_size > _MOST]
            if too_large:
                raise ValueError(f"{too_large[0]} is too large")
            arrays = {
                name: np.load(io.BytesIO(file.read(member)), allow_pickle=False) for name, member in members.items()
            }
        return _checked(arrays)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else in_one_line(error)
        raise StoreError(f"cannot read the totals in {path} ({reason}): run the suite again") from error


def _checked(arrays: dict[str, Any]) -> Tallies:
    """Return the totals.

    Raises:
        ValueError: a shape or a number is impossible.
    """
    count = len(arrays["names"])
    shapes: dict[str, tuple[int, ...]] = {"names": (count,), "episodes": (count,), "accuracy": (count,)}
    shapes["confusions"] = (len(arrays["confusions"]), 3)
    shapes["reliability"] = (2, 3, arrays["reliability"].shape[-1])
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} of shape {arrays[name].shape}")
    names = [visible(str(name)) for name in arrays.pop("names")]
    classes, accuracy = arrays["confusions"][:, :2], arrays["accuracy"]
    possible = ((accuracy >= 0) & (accuracy <= 1)).all() and (arrays["episodes"] > 0).all()
    if not possible or ((classes < 0) | (classes >= count)).any():
        raise ValueError("a number that is impossible")
    return Tallies(names, **arrays)
