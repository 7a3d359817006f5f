"""Files of MNIST's format IDX."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from metabench.api import DataError

#: The first bytes of a file of unsigned bytes, before the number of dimensions.
_BYTES = b"\x00\x00\x08"


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Return the array of a file, which may be compressed by gzip.

    Args:
        path: the file.
        dimensions: the number of dimensions.

    Raises:
        DataError: the file is damaged, or of another format.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}): get the file again") from error
    header = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:header], ">u4").tolist()
    if content[:4] != _BYTES + bytes([dimensions]) or len(content) != header + math.prod(shape):
        raise DataError(f"{path} is no IDX file of bytes with {dimensions} dimensions: get the original file again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
