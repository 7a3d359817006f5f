"""Read one image file as the images of a dataset."""

from __future__ import annotations

from pathlib import Path

from metabench.api import DataError
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.decoding import DamagedImage, Pixels, decoded


def image_in(path: Path, config: ImageConfig) -> Pixels:
    """Return the [C, S, S] pixels of an image file.

    Raises:
        DataError: it cannot be decoded; the message is the reason alone.
    """
    try:
        return decoded(path, config)
    except DamagedImage as damage:
        raise DataError(str(damage)) from damage
