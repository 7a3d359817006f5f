"""Images in arrays: of pickles, and of NumPy's archives, which may be larger than the memory."""

from __future__ import annotations

import io
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from metabench.api import DataError, Progress
from metabench_plugins.images.classes import Photo, PhotoClass

#: Bytes copied between two reports of progress.
_AT_ONCE = 2**24


def checked_images(path: Path, images: Any) -> npt.NDArray[np.uint8]:
    """Return uint8 [n, H, W, 3] images, as a file holds them.

    Args:
        path: the file, for the message.
        images: the content of the file.

    Raises:
        DataError: it is no such array.
    """
    array = np.asarray(images) if isinstance(images, list) else images
    if isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] == 3:
        return array
    came = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
    raise DataError(f"the images of {path} must be uint8 [n, height, width, 3], and are {came}: get another file")


def rows_by_label(path: Path, labels: Any, count: int) -> dict[int, npt.NDArray[np.int64]]:
    """Return the rows of each label, in order.

    Args:
        path: the file, for the message.
        labels: [n] whole numbers.
        count: number of images.

    Raises:
        DataError: the labels are not one whole number for each image.
    """
    numbers = np.asarray(labels)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or len(numbers) != count:
        came = f"{numbers.dtype} {list(numbers.shape)}"
        raise DataError(f"the labels of {path} must be {count} whole numbers, one for each image, and are {came}")
    order = np.argsort(numbers, kind="stable").astype(np.int64)
    found, first = np.unique(numbers[order], return_index=True)
    return {int(label): rows for label, rows in zip(found, np.split(order, first[1:]), strict=True)}


def array_class(
    path: Path,
    name: str,
    images: npt.NDArray[np.uint8],
    rows: Sequence[int] | npt.NDArray[np.int64],
    change: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]] = lambda pixels: pixels,
) -> PhotoClass:
    """Return a class whose images are rows of an array.

    Args:
        path: the file, for messages.
        name: the name of the class.
        images: [n, H, W, 3] images, or [n, H, W] grey ones.
        rows: the rows of the class.
        change: is given the pixels of an image, and returns them red, green and blue, upright.
    """
    photos = [
        Photo(f"{row:06d}", f"image {row} of {path}", partial(_as_file, images, row, change)) for row in map(int, rows)
    ]
    return PhotoClass(name, photos)


def _as_file(
    images: npt.NDArray[np.uint8], row: int, change: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]
) -> BinaryIO:
    """Return an image as a PPM or PGM file, so that images of arrays and of files are sized by the same rules."""
    pixels = change(images[row])
    height, width = pixels.shape[:2]
    return io.BytesIO(f"P{6 if pixels.ndim == 3 else 5} {width} {height} 255\n".encode() + pixels.tobytes())


@contextmanager
def unpacked_array(path: Path, key: str, folder: Path, progress: Progress) -> Iterator[npt.NDArray[Any]]:
    """Yield an array of an ``.npz`` file, mapped from a copy that is deleted when the block ends.

    Args:
        path: the file.
        key: the name of the array.
        folder: the folder of the copy, which may have gigabytes.
        progress: told of the copied megabytes.

    Raises:
        DataError: the file is damaged, or has no such array; or the folder is full.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked-") as temporary:
        copy = Path(temporary, f"{key}.npy")
        try:
            with zipfile.ZipFile(path) as archive:
                _copied(archive, copy, f"unpacking MiB of {path.name}", progress)
            array = np.load(copy, mmap_mode="r", allow_pickle=False)
        except KeyError as error:
            raise DataError(f"{path} has no array '{key}': get another file") from error
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError) as error:
            raise DataError(f"{path} cannot be read ({type(error).__name__}): get the file again") from error
        except OSError as error:
            raise DataError(
                f"{path} cannot be unpacked into {folder} ({error.strerror or error}): free some space, or set "
                "METABENCH_CACHE to another directory"
            ) from error
        yield array


def _copied(archive: zipfile.ZipFile, copy: Path, work: str, progress: Progress) -> None:
    member = archive.getinfo(copy.name)
    with archive.open(member) as source, open(copy, "wb") as target:
        while block := source.read(_AT_ONCE):
            target.write(block)
            progress(target.tell() >> 20, member.file_size >> 20, work)
