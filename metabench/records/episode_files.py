"""Per-episode results of one cell, as an npz file that agrees with its record."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from metabench.errors import StoreError, in_one_line
from metabench.files import atomic_file, read_regular
from metabench.records.measured import Estimate
from metabench.records.record import EpisodeResults, Outputs, Record
from metabench.records.tallies import read_tallies, tally_arrays
from metabench.records.values import ROUNDING

if TYPE_CHECKING:  # reading records must not import numpy
    import numpy as np
    import numpy.typing as npt

#: Most bytes of an array's header.
_HEADER = 10_000
#: Folder of the figures of metrics in the archive.
_METRICS = "metrics/"
#: The largest number of figures of an episode that is read.
_MOST_FIGURES = 10_000


def read_episodes(
    path: Path,
    record: Record,
    groups: bool = True,
    metrics: Collection[str] | None = None,
    by_label: bool = False,
) -> EpisodeResults:
    """Return the per-episode results of a finished cell.

    Args:
        path: the file.
        record: the cell's record, which is ok.
        groups: whether the groups are wanted, which are half of the work; else they are [n, 0].
        metrics: the metrics that are wanted; None means all.
        by_label: whether the accuracies of each label, and the totals by class, are wanted.

    Raises:
        StoreError: the file is missing or damaged, or its values differ from the record.
    """
    import numpy as np

    primary, alone = record.primary, record.inductive_accuracy
    assert primary is not None
    n = primary.episodes
    try:
        with ZipFile(io.BytesIO(read_regular(path))) as file:
            figures = {
                name: _figures(file, record, name, estimate)
                for name, estimate in record.metrics.items()
                if estimate is not None and (metrics is None or name in metrics)
            }
            # A regression has groups where its source has a number of tasks.
            grouped = record.way > 0 if record.task == "classification" else "groups.npy" in file.namelist()
            wanted = groups and grouped
            members = _array(file, "groups", np.int64, (n, record.way)) if wanted else np.empty((n, 0), np.int64)
            alone_values = None
            if record.transductive and alone is not None and "alone.npy" in file.namelist():
                alone_values = _array(file, "alone", np.float64, (alone.episodes,))
                _check(alone_values, alone, record, record.ranked_by, " alone")
            by_class = None
            if by_label and "by_class.npy" in file.namelist():
                by_class = _array(file, "by_class", np.float64, (n, record.way))
        tallies = read_tallies(path) if by_label else None
        return EpisodeResults(figures, members, alone_values, by_class, tallies=tallies)
    except FileNotFoundError as error:
        raise StoreError(f"there are no per-episode results {path}: run the suite again") from error
    except StoreError:
        raise
    except _Disagrees as error:
        raise StoreError(f"{path} and its record disagree ({error}): run the suite again") from error
    except Exception as error:  # a damaged file can raise nearly anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else in_one_line(error)
        raise StoreError(f"cannot read the per-episode results {path} ({reason}): run the suite again") from error


def write_episodes(path: Path, results: EpisodeResults) -> None:
    """Write per-episode results, whole or not at all."""
    import numpy as np

    arrays: dict[str, Any] = {f"{_METRICS}{name}": values for name, values in results.figures.items()}
    groups = results.groups if results.groups.shape[1] else None
    further = {"groups": groups, "alone": results.alone, "by_class": results.by_class}
    arrays |= {name: array for name, array in further.items() if array is not None}
    arrays |= tally_arrays(results.tallies) if results.tallies else {}
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_outputs(path: Path) -> Outputs | None:
    """Return the kept outputs of a cell; None if there are none.

    Raises:
        StoreError: the file is damaged.
    """
    import numpy as np

    if not os.path.lexists(path):
        return None
    try:
        with np.load(io.BytesIO(read_regular(path)), allow_pickle=False) as file:
            outputs, targets, values = file["outputs"], file["targets"], file["values"]
        if outputs.ndim < 3 or outputs.shape[:2] != targets.shape[:2] or values.shape != targets.shape[:1]:
            raise ValueError(f"outputs of shape {outputs.shape}, targets of {targets.shape}, values of {values.shape}")
        return Outputs(outputs, targets, values)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else in_one_line(error)
        raise StoreError(f"cannot read the kept outputs {path} ({reason}): delete the file") from error


def write_outputs(path: Path, outputs: Outputs) -> None:
    """Write the kept outputs of a cell, whole or not at all; not compressed, which would take longer than the test."""
    import numpy as np

    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **vars(outputs))


class _Disagrees(Exception):
    """The file has other results than its record."""


def _figures(file: ZipFile, record: Record, name: str, estimate: Estimate) -> npt.NDArray[np.float64]:
    """Return the figures of a metric, checked against its estimate."""
    import numpy as np

    # Versions 1 and 2 had one metric.
    member = "accuracies" if record.schema_version < 3 else f"{_METRICS}{name}"
    if estimate.is_pooled:
        return _array(file, member, np.float64, (estimate.episodes, None))
    values = _array(file, member, np.float64, (estimate.episodes,))
    _check(values, estimate, record, name)
    return values


def _array(file: ZipFile, name: str, dtype: type[Any], shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """Return an array; its size is checked before it is unpacked, so that a false one takes no memory.

    Args:
        file: the archive.
        name: name of the member, without suffix.
        dtype: type of the values.
        shape: the shape; None stands for any number up to `_MOST_FIGURES`.
    """
    import numpy as np

    info = file.getinfo(f"{name}.npy")
    if info.file_size > _HEADER + 8 * math.prod(_MOST_FIGURES if size is None else size for size in shape):
        raise _Disagrees(f"{name} of {info.file_size} bytes for {shape[0]} episodes")
    data = io.BytesIO(file.read(info))
    version = np.lib.format.read_magic(data)
    if version != (1, 0):
        raise ValueError(f"{name} in format {version}")
    found, fortran, stored = np.lib.format.read_array_header_1_0(data)
    expected = tuple(there if size is None else size for there, size in zip(found, shape, strict=False))
    if len(found) != len(shape) or found != expected:
        raise _Disagrees(f"{name} of shape {found}, and {shape} in the record")
    if (fortran and len(shape) > 1) or not np.can_cast(stored, dtype, "same_kind"):
        raise ValueError(f"{name} of type {stored}")
    return np.frombuffer(data.read(), stored).reshape(found).astype(dtype, copy=False)


def _check(values: npt.NDArray[np.float64], recorded: Estimate, record: Record, name: str, protocol: str = "") -> None:
    """Check that values are within the bounds of their metric, and have the recorded mean."""
    declared, mean = record.declarations[name], float(values.mean())
    if not declared.admits(float(values.min()), float(values.max())):  # also where one is no number
        raise _Disagrees(f"{declared.title} of an episode is not {declared.bounds}")
    if abs(mean - recorded.value) > ROUNDING * max(1.0, abs(mean)):
        shown = f"{mean * declared.scale:.2f} {declared.unit}".rstrip()
        raise _Disagrees(
            f"{declared.title}{protocol} {shown} in the file, "
            f"{recorded.value * declared.scale:.2f} {declared.unit}".rstrip()
            + " in the record"
        )
