"""Pickles of strangers, of which arrays and plain containers are read, and nothing runs.

A pickle may call any function that it names. Here it reaches a short list of names only, those with which NumPy 1 and
2 and Python 2 and 3 write arrays and containers.
"""

from __future__ import annotations

import codecs
import collections
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import numpy.typing as npt

from metabench.api import DataError, Progress

_PNG = b"\x89PNG\r\n\x1a\n"
#: Images between two reports of progress.
_AT_ONCE = 1000
#: Exceptions that damaged pickles raise.
_DAMAGED = (
    *(pickle.UnpicklingError, EOFError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(MemoryError, OverflowError, ImportError, NotImplementedError),
)


class _Refused(Exception):
    """A pickle names something that is neither an array nor a plain container."""


class _Unpickler(pickle.Unpickler):
    """Reads arrays and plain containers; texts of Python 2 come as bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 and Python 3 have renamed modules.
        place = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (place, name) not in _admitted():
            raise _Refused(f"{module}.{name}")
        return _admitted()[place, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("a persistent object")


def _admitted() -> Mapping[tuple[str, str], Any]:
    """Return the objects that pickles may name, by module and name."""
    array = np.empty(0, np.uint8)
    reconstruct, from_buffer = array.__reduce__()[0], array.__reduce_ex__(5)[0]
    scalar = np.float64(0).__reduce__()[0]
    return {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy.core.numeric", "_frombuffer"): from_buffer,
        ("_codecs", "encode"): codecs.encode,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        **{("builtins", kind.__name__): kind for kind in (list, dict, set, frozenset, tuple, bytearray, int)},
    }


def read_pickle(path: Path, file: IO[bytes] | None = None) -> Any:
    """Return the content of a pickle: arrays, numbers, texts and containers.

    Texts that Python 2 wrote are bytes: see `item` and `as_text`.

    Args:
        path: the file, for the message.
        file: the open file, where it is inside of another; None opens `path`.

    Raises:
        DataError: the file is no pickle, damaged, or names anything else.
    """
    try:
        if file is not None:
            return _Unpickler(file).load()
        with open(path, "rb") as opened:
            return _Unpickler(opened).load()
    except _Refused as error:
        raise DataError(
            f"{path} asks for {error}, which is neither an array nor a plain container: reading it could run a "
            "stranger's code. Get the original file"
        ) from error
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read as a pickle ({type(error).__name__}): get the file again") from error


def item(path: Path, content: Any, key: str) -> Any:
    """Return the value of a key, which Python 2 wrote as bytes.

    Args:
        path: the file, for the message.
        content: the content of the pickle.
        key: the key.

    Raises:
        DataError: the content is no dictionary, or does not have the key.
    """
    if isinstance(content, dict):
        for name in (key, key.encode()):
            if name in content:
                return content[name]
    keys = ", ".join(sorted(map(as_text, content))[:8]) if isinstance(content, dict) else type(content).__name__
    raise DataError(f"{path} must be a pickled dictionary with the key '{key}', and is one of {keys}: get another file")


def as_text(value: object) -> str:
    """Return a text, which Python 2 wrote as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def png_positions(path: Path, progress: Progress) -> npt.NDArray[np.int64]:
    """Return where the PNG images of a pickled list begin in its file.

    The pickle is scanned, not loaded: a list of all images of tieredImageNet does not fit into the memory of everybody.

    Args:
        path: the file.
        progress: told of the scanned megabytes.

    Raises:
        DataError: the file is no pickle, or damaged.
    """
    found = list[int]()
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            for _, argument, position in pickletools.genops(file):
                if position is None or not isinstance(argument, (bytes, bytearray, str)):
                    continue
                if _bytes(argument[: len(_PNG)]) == _PNG:
                    found.append(position)
                    if len(found) % _AT_ONCE == 0:
                        progress(position >> 20, size >> 20, f"scanning MiB of {path.name}")
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read as a pickle ({type(error).__name__}): get the file again") from error
    return np.array(found, np.int64)


def png_at(file: IO[bytes], position: int) -> bytes:
    """Return the PNG image that begins at a position of a pickle.

    Args:
        file: the open pickle.
        position: one of `png_positions`.
    """
    file.seek(position)
    _, argument, _ = next(iter(pickletools.genops(file)))
    return _bytes(argument)


def _bytes(argument: object) -> bytes:
    """Return bytes as they are; Python 2, and protocol 2 of Python 3, write them as text."""
    return bytes(argument) if isinstance(argument, (bytes, bytearray)) else str(argument).encode("latin1", "replace")
