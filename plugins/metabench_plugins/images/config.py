"""Parameters of datasets that are made from image files."""

from __future__ import annotations

from typing import Any, Literal

from PIL import Image
from pydantic import Field, field_validator, model_validator

from metabench import api

#: Largest side of an image in a pack, in pixels.
_LARGEST = 4096


class ImageConfig(api.Config):
    """Size, colours and quality of the images that a dataset makes from image files.

    Attributes:
        image_size: height and width of the images in pixels.
        resize: size before the crop at the centre, as in torchvision's `Resize`: pixels of the shorter side, or
            [height, width], which stretches the image; None means `image_size` pixels of the shorter side.
        interpolation: filter of the resizing.
        channels: 3 for colour, 1 for grey.
        ground: red, green and blue behind transparent pixels.
        damaged: "refuse" the dataset if a file cannot be decoded, or "skip" such files.
    """

    image_size: int = Field(default=84, ge=1, le=_LARGEST)
    resize: int | tuple[int, int] | None = None
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = "lanczos"
    channels: Literal[1, 3] = 3
    ground: tuple[int, int, int] = (255, 255, 255)
    damaged: Literal["refuse", "skip"] = "refuse"

    @field_validator("resize", mode="before")
    @classmethod
    def _is_a_size(cls, value: Any) -> Any:
        if value is None or _in_range([value], 1, _LARGEST):
            return value
        if _in_range(value, 1, _LARGEST) and len(value) == 2:
            return tuple(value)
        raise ValueError(f"a number of pixels or [height, width] is needed, from 1 to {_LARGEST}")

    @field_validator("ground", mode="before")
    @classmethod
    def _is_a_colour(cls, value: Any) -> Any:
        if _in_range(value, 0, 255) and len(value) == 3:
            return tuple(value)
        raise ValueError("a colour is needed, [red, green, blue], each from 0 to 255")

    @model_validator(mode="after")
    def _crop_is_inside(self) -> ImageConfig:
        sides = (self.resize,) if isinstance(self.resize, int) else self.resize or ()
        if any(side < self.image_size for side in sides):
            raise ValueError(
                f"resize is {self.resize}, smaller than the crop at the centre: it must be at least image_size, "
                f"{self.image_size}"
            )
        return self

    @property
    def filter(self) -> Image.Resampling:
        """Return Pillow's name of the interpolation."""
        return Image.Resampling[self.interpolation.upper()]


def _in_range(values: Any, least: int, most: int) -> bool:
    """Return whether values are whole numbers in a range."""
    return isinstance(values, (list, tuple)) and all(
        isinstance(value, int) and not isinstance(value, bool) and least <= value <= most for value in values
    )
