"""Images of any mode, as a person sees them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

#: Largest values of the scales that floating-point images have: of shares, of bytes, of 16 bits.
_FLOAT_SCALES = (1.0, 255.0, 65535.0)
#: Of integers of more than eight bits; Pillow reads a PNG file of 16 bits as either of two modes.
_INTEGER_SCALES = (65535.0,)
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")


def as_seen(image: Image.Image, grey: bool, ground: tuple[int, int, int]) -> Image.Image:
    """Return an image in mode L or RGB.

    Transparent pixels show the ground. Values of 16 bits are divided by 257. Integers outside 0 … 65535 are stretched
    from their lowest to their highest value, and so are floating-point numbers outside the scales 0 … 1, 0 … 255 and
    0 … 65535.

    Args:
        image: an image of any mode.
        grey: whether the result is of mode L.
        ground: red, green and blue behind transparent pixels.

    Raises:
        ValueError: Pillow cannot convert the mode.
    """
    target = "L" if grey else "RGB"
    if image.mode == "F":
        return _levels(np.asarray(image), _FLOAT_SCALES).convert(target)
    if image.mode.startswith("I"):
        return _levels(np.asarray(image), _INTEGER_SCALES).convert(target)
    if image.mode == "LAB":  # `convert` does not know it
        rgb = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        if rgb is None:
            raise ValueError("the mode LAB cannot be converted")
        return rgb.convert(target)
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        straight = image.convert("LA") if image.mode == "La" else image  # Pillow converts La to LA only
        behind = Image.new("RGBA", image.size, (*ground, 255))
        return Image.alpha_composite(behind, straight.convert("RGBA")).convert(target)
    return image.convert(target)


def _levels(values: npt.NDArray[np.generic], scales: tuple[float, ...]) -> Image.Image:
    """Return numbers as an image of 256 levels of grey."""
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    lowest, highest = float(numbers.min()), float(numbers.max())
    scale = next((scale for scale in scales if lowest >= 0 and highest <= scale), None)
    if scale is None:
        numbers, scale = numbers - lowest, max(highest - lowest, 1.0)
    return Image.fromarray(np.rint(numbers * (255 / scale)).astype(np.uint8))
