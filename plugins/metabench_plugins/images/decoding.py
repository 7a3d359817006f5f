"""Decode image files: one, or many on all cores."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.modes import as_seen

#: Endings of image files.
ENDINGS = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tga", ".tif", ".tiff", ".webp"),
)
#: Most pixels of an image: Pillow's own limit, beyond which it warns of a decompression bomb.
MOST_PIXELS = 89_478_485
#: Most pixels of a resized image of which a crop is taken.
_MOST_RESIZED = 2**24
#: Images that a core decodes before all results are handed on: their progress is seen, and memory holds few.
_AT_ONCE = 32

#: The path of a file, the content of a file, or a function that opens one.
Encoded: TypeAlias = Path | bytes | Callable[[], BinaryIO]
#: Left, upper, right and lower edge of a part of an upright image, in pixels.
Box: TypeAlias = tuple[float, float, float, float]
#: [C, S, S] pixels of an image.
Pixels: TypeAlias = npt.NDArray[np.uint8]

_T = TypeVar("_T")
_R = TypeVar("_R")


class DamagedImage(Exception):
    """An image file cannot be decoded; the text is the reason."""


def is_image(name: str) -> bool:
    """Return whether a file has the ending of an image."""
    return os.path.splitext(name)[1].lower() in ENDINGS


def decoded(source: Encoded, config: ImageConfig, box: Box | None = None) -> Pixels:
    """Return the [C, S, S] pixels of an image file, upright, resized and cropped at the centre.

    Args:
        source: the file.
        config: size and colours of the result.
        box: the part of the upright image that is taken, cut at the edges of the image; None takes all.

    Raises:
        DamagedImage: the file cannot be decoded, or has too many pixels.
    """
    with opened(source) as image:
        seen = as_seen(ImageOps.exif_transpose(image), config.channels == 1, config.ground)
        part = seen if box is None else seen.crop(_within(box, seen.size))
        pixels = np.asarray(_sized(part, config))
        return pixels[None] if config.channels == 1 else pixels.transpose(2, 0, 1)


@contextmanager
def opened(source: Encoded) -> Iterator[Image.Image]:
    """Yield an image whose header was read; turn the errors of the block into `DamagedImage`."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else _file(source)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DamagedImage(f"{image.width}×{image.height} pixels, more than {MOST_PIXELS}")
            yield image
    except DamagedImage:
        raise
    except Image.DecompressionBombError as error:
        raise DamagedImage(f"more than {2 * MOST_PIXELS} pixels") from error
    except Exception as error:  # Pillow raises almost anything for damaged files
        text = "no image that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DamagedImage(f"{type(error).__name__}: {text}" if text else type(error).__name__) from error


def on_all_cores(call: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R | DamagedImage]:
    """Yield the result for each item in order, or the damage that the call found.

    Pillow decodes and resizes without Python's lock, so that threads use all cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    remaining = iter(items)
    with ThreadPoolExecutor(cores) as pool:
        while part := list(islice(remaining, _AT_ONCE * cores)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow, on oddities of headers
                results = list(pool.map(lambda item: _tried(call, item), part))
            yield from results


def _tried(call: Callable[[_T], _R], item: _T) -> _R | DamagedImage:
    try:
        return call(item)
    except DamagedImage as damage:
        return damage


def _file(source: Path | Callable[[], BinaryIO]) -> Path | BinaryIO:
    return source if isinstance(source, Path) else source()


def _within(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box in whole pixels inside an image of (width, height).

    Raises:
        ValueError: no pixel is inside.
    """
    left, upper = max(0, round(box[0])), max(0, round(box[1]))
    right, lower = min(size[0], round(box[2])), min(size[1], round(box[3]))
    if left >= right or upper >= lower:
        raise ValueError(f"the box {box} has no pixel of an image of {size[0]}×{size[1]} pixels")
    return left, upper, right, lower


def _sized(image: Image.Image, config: ImageConfig) -> Image.Image:
    """Return the crop at the centre of the resized image; whole pixels are those of torchvision."""
    size, (width, height) = config.image_size, image.size
    if config.resize is None:
        return ImageOps.fit(image, (size, size), config.filter)
    if isinstance(config.resize, int):
        across, down = (int(config.resize * side / min(image.size)) for side in image.size)
    else:
        down, across = config.resize
    left, upper = round((across - size) / 2), round((down - size) / 2)
    if across * down <= _MOST_RESIZED:
        resized = image.resize((across, down), config.filter)
        return resized.crop((left, upper, left + size, upper + size))
    # The resized image of a narrow strip would be huge: the same, but for rounding.
    x, y = width / across, height / down
    box = (left * x, upper * y, (left + size) * x, (upper + size) * y)
    return image.resize((size, size), config.filter, box=box)
