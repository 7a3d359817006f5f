"""Rows on disk: written as a stream, mapped into memory when they are read.

A file is in the safetensors format. Its header has a fixed length, so that it can be written last, and the rows begin
at a page of memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from metabench.files import atomic_file

#: Bytes before the rows: the length of the header, the header, and spaces.
_HEADER = 4096
_DTYPES = {"U8": np.dtype(np.uint8), "F32": np.dtype(np.float32), "I64": np.dtype(np.int64)}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class RowFile:
    """The content of a file of rows.

    Attributes:
        rows: [n, …] rows, mapped: processes share the pages, and writing to them changes a private copy.
        tensors: small arrays beside the rows, by name.
        metadata: texts.
    """

    rows: npt.NDArray[Any]
    tensors: Mapping[str, npt.NDArray[Any]]
    metadata: Mapping[str, str]


class DamagedFile(Exception):
    """A file is not as it was written: cut, changed, or of another format."""


class RowWriter:
    """Writes rows to a file, part by part.

    Args:
        file: the open file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._file.seek(_HEADER)
        self._count = 0
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Append [k, …] rows, all of one shape and dtype: uint8 or float32.

        Raises:
            OSError: the file cannot be written.
        """
        self._count += len(rows)
        self._shape, self._dtype = rows.shape[1:], rows.dtype
        self._file.write(np.ascontiguousarray(rows).data.cast("B"))

    def rows(self) -> npt.NDArray[Any]:
        """Return the rows so far, mapped."""
        self._file.flush()
        return _mapped(self._file.name, self._dtype, (self._count, *self._shape))

    def finish(self, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> None:
        """Write the arrays beside the rows, and the header.

        Raises:
            OSError: the file cannot be written.
            ValueError: the metadata are too long for the header.
        """
        end = self._count * int(np.prod(self._shape)) * self._dtype.itemsize
        entries: dict[str, Any] = {"rows": _entry(self._dtype, (self._count, *self._shape), 0, end)}
        digest = hashlib.sha256()
        for name, tensor in tensors.items():
            content = np.ascontiguousarray(tensor).tobytes()
            entries[name] = _entry(tensor.dtype, tensor.shape, end, end + len(content))
            end += len(content)
            digest.update(content)
            self._file.write(content)
        entries["__metadata__"] = {**metadata, "sum": _sum(entries, metadata, digest.hexdigest())}
        header = json.dumps(entries).encode()
        if len(header) > _HEADER - 8:
            raise ValueError(f"the metadata of {self._file.name} are too long")
        self._file.seek(0)
        self._file.write((_HEADER - 8).to_bytes(8, "little") + header.ljust(_HEADER - 8))


@contextmanager
def written_rows(path: Path) -> Iterator[RowWriter]:
    """Yield the writer of a file, which replaces `path` on success.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_file(path) as temporary, open(temporary, "rb+") as file:
        yield RowWriter(file)
        file.flush()


def map_rows(path: Path) -> RowFile:
    """Return the content of a file; its rows are mapped, and not read.

    Raises:
        DamagedFile: the header, the size or an array beside the rows is not as it was written.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length != _HEADER - 8:
            raise DamagedFile(path)
        try:
            entries = json.loads(file.read(length))
            metadata = dict(entries.pop("__metadata__"))
            places = {
                name: (_DTYPES[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"])
                for name, entry in entries.items()
            }
            dtype, shape, _, end = places.pop("rows")
            size = max([end, *(last for *_, last in places.values())])
            if os.fstat(file.fileno()).st_size != _HEADER + size:
                raise DamagedFile(path)
            file.seek(_HEADER + end)
            content = file.read(size - end)
            if metadata.pop("sum") != _sum(entries, metadata, hashlib.sha256(content).hexdigest()):
                raise DamagedFile(path)
            tensors = {
                name: np.frombuffer(content[first - end : last - end], dtype).reshape(shape)
                for name, (dtype, shape, first, last) in places.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFile(path) from error
    return RowFile(_mapped(str(path), dtype, shape), tensors, metadata)


def _mapped(path: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return an array of the file's pages; "c" stands for copy on write."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype, mode="c", offset=_HEADER, shape=shape))


def _entry(dtype: np.dtype[Any], shape: tuple[int, ...], first: int, last: int) -> dict[str, Any]:
    return {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [first, last]}


def _sum(entries: Mapping[str, Any], metadata: Mapping[str, str], content: str) -> str:
    """Return a hash of the header and of the arrays beside the rows."""
    text = json.dumps([entries, metadata, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
