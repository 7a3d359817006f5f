"""Read the arrays of a file: NumPy's archives, safetensors and Parquet."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metabench.api import DataError
from metabench_plugins.vectors.keys import KeysConfig

Array = npt.NDArray[Any]
_PARTS = ("vectors", "labels", "class_names", "splits", "names")
#: Number of keys that a message shows.
_SHOWN = 10
_AGAIN = "save the file anew, or get it again"


def read_arrays(path: Path, keys: KeysConfig) -> Mapping[str, Array]:
    """Return the arrays of a file by part, see `KeysConfig`; optional parts that the file lacks are left out.

    Args:
        path: a file with a suffix of `READERS`.
        keys: the keys of the parts.

    Raises:
        DataError: the file is damaged, lacks a part, or has one that cannot be read.
    """
    return READERS[path.suffix.lower()](path, keys)


def _npz(path: Path, keys: KeysConfig) -> Mapping[str, Array]:
    try:
        # Without pickles, which could run code. NumPy leaves a damaged file open, unless it is opened here.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {part: _plain(archive, path, key) for part, key in _found(path, list(archive), keys).items()}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, AttributeError, TypeError) as error:
        raise _unreadable(path, error) from error


def _plain(archive: Any, path: Path, key: str) -> Array:
    try:
        array: Array = archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{path}: '{key}' holds Python objects, which are not read, since a file of them could run code: save "
            "texts as np.array(texts, dtype=str), and numbers as an array of numbers"
        ) from error
    return array


def _safetensors(path: Path, keys: KeysConfig) -> Mapping[str, Array]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found = _found(path, [*file.keys(), *metadata], keys)
            return {
                part: _listed(path, key, metadata[key]) if key in metadata else _as_numpy(file.get_tensor(key))
                for part, key in found.items()
            }
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _as_numpy(tensor: Any) -> Array:
    array: Array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
    return array


def _listed(path: Path, key: str, text: str) -> Array:
    """Return a JSON list in the metadata of a file."""
    try:
        return np.array(json.loads(text), dtype=str)
    except ValueError as error:
        raise DataError(f"{path}: '{key}' in its metadata must be a JSON list of texts: correct it") from error


def _parquet(path: Path, keys: KeysConfig) -> Mapping[str, Array]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path}: Parquet files are read by pyarrow, which is not installed: pip install 'metabench[parquet]', or "
            "save the vectors as .npz"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            found = _found(path, file.schema_arrow.names, keys)
            table = file.read(columns=list(found.values()))
        return {part: _column(path, key, table[key].combine_chunks()) for part, key in found.items()}
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _column(path: Path, key: str, column: Any) -> Array:
    """Return a column of Arrow: [n], or [n, D] of lists."""
    import pyarrow as pa
    from pyarrow import compute

    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}: '{key}' has {column.null_count} empty values, e.g. in row {row}: fill or remove them")
    nested = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_nested(column.type) for is_nested in nested):
        array: Array = np.array(column.to_pylist())
        return array
    lengths = compute.list_value_length(column).to_numpy()
    if len(np.unique(lengths)) > 1:
        raise DataError(
            f"{path}: the lists of '{key}' have {lengths.min()} to {lengths.max()} numbers: give all rows as many"
        )
    flat: Array = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(lengths), -1) if len(lengths) else flat.reshape(0, 0)


def _found(path: Path, present: list[str], keys: KeysConfig) -> dict[str, str]:
    """Return the keys of the parts that a file has."""
    found = {}
    for part in _PARTS:
        if keys.key(part) in present:
            found[part] = keys.key(part)
        elif keys.required(part):
            shown = ", ".join(present[:_SHOWN]) + (", …" if len(present) > _SHOWN else "")
            raise DataError(
                f"{path} has no '{keys.key(part)}', but {shown or 'nothing'}: add it, or name another by the parameter "
                f"`{part}`"
            )
    return found


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({type(error).__name__}): {_AGAIN}")


#: By suffix, in the order in which a folder is searched.
READERS: Mapping[str, Callable[[Path, KeysConfig], Mapping[str, Array]]] = {
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
}
