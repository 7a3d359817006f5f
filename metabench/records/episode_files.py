"""Per-episode results of one cell, as an npz file that agrees with its record."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from metabench.errors import StoreError, in_one_line
from metabench.files import atomic_file, read_regular
from metabench.records.record import Accuracy, EpisodeResults, Record

if TYPE_CHECKING:  # reading records must not import numpy
    import numpy as np
    import numpy.typing as npt

#: Most bytes of an array's header.
_HEADER = 10_000
#: Largest difference of a mean that counts as another order of summation.
_ROUNDING = 1e-9


def read_episodes(path: Path, record: Record, groups: bool = True, by_label: bool = False) -> EpisodeResults:
    """Return the per-episode results of a finished cell.

    Args:
        path: the file.
        record: the cell's record, which is ok.
        groups: whether the groups are wanted, which are half of the work; else they are [n, 0].
        by_label: whether the accuracies of each label are wanted.

    Raises:
        StoreError: the file is missing or damaged, or its accuracies differ from the record.
    """
    import numpy as np

    accuracy, alone = record.accuracy, record.inductive_accuracy
    assert accuracy is not None
    n = accuracy.episodes
    try:
        with ZipFile(io.BytesIO(read_regular(path))) as file:
            accuracies = _array(file, "accuracies", np.float64, (n,))
            _check(accuracies, accuracy, "accuracy")
            members = _array(file, "groups", np.int64, (n, record.way)) if groups else np.empty((n, 0), np.int64)
            alone_accuracies = None
            if record.transductive and alone is not None and "alone.npy" in file.namelist():
                alone_accuracies = _array(file, "alone", np.float64, (alone.episodes,))
                _check(alone_accuracies, alone, "accuracy alone")
            by_class = None
            if by_label and "by_class.npy" in file.namelist():
                by_class = _array(file, "by_class", np.float64, (n, record.way))
        return EpisodeResults(accuracies, members, alone_accuracies, by_class)
    except FileNotFoundError as error:
        raise StoreError(f"there are no per-episode results {path}: run the suite again") from error
    except _Disagrees as error:
        raise StoreError(f"{path} and its record disagree ({error}): run the suite again") from error
    except Exception as error:  # a damaged file can raise nearly anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else in_one_line(error)
        raise StoreError(f"cannot read the per-episode results {path} ({reason}): run the suite again") from error


def write_episodes(path: Path, results: EpisodeResults) -> None:
    """Write per-episode results, whole or not at all."""
    import numpy as np

    arrays = {name: array for name, array in vars(results).items() if array is not None}
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


class _Disagrees(Exception):
    """The file has other results than its record."""


def _array(file: ZipFile, name: str, dtype: type[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return an array; its size is checked before it is unpacked, so that a false one takes no memory."""
    import numpy as np

    info = file.getinfo(f"{name}.npy")
    if info.file_size > _HEADER + 8 * math.prod(shape):
        raise _Disagrees(f"{name} of {info.file_size} bytes for {shape[0]} episodes")
    data = io.BytesIO(file.read(info))
    version = np.lib.format.read_magic(data)
    if version != (1, 0):
        raise ValueError(f"{name} in format {version}")
    found, fortran, stored = np.lib.format.read_array_header_1_0(data)
    if found != shape:
        raise _Disagrees(f"{name} of shape {found}, and {shape} in the record")
    if (fortran and len(shape) > 1) or not np.can_cast(stored, dtype, "same_kind"):
        raise ValueError(f"{name} of type {stored}")
    return np.frombuffer(data.read(), stored).reshape(shape).astype(dtype, copy=False)


def _check(accuracies: npt.NDArray[np.float64], recorded: Accuracy, name: str) -> None:
    """Check that accuracies are shares with the recorded mean."""
    mean = float(accuracies.mean())
    if not (accuracies.min() >= 0 and accuracies.max() <= 1):  # also where one is no number
        raise _Disagrees("an accuracy of an episode is not between 0 and 1")
    if abs(mean - recorded.mean) > _ROUNDING:
        raise _Disagrees(f"{name} {mean * 100:.2f} % in the file, {recorded.mean * 100:.2f} % in the record")
