"""Parameters of datasets that are made from image files."""

from __future__ import annotations

from typing import Annotated, Literal

from PIL import Image
from pydantic import Field, model_validator

from metabench import api

_Level = Annotated[int, Field(ge=0, le=255)]
_Pixels = Annotated[int, Field(ge=1, le=4096)]


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

    image_size: _Pixels = 84
    resize: _Pixels | tuple[_Pixels, _Pixels] | None = None
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = "lanczos"
    channels: Literal[1, 3] = 3
    ground: tuple[_Level, _Level, _Level] = (255, 255, 255)
    damaged: Literal["refuse", "skip"] = "refuse"

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
