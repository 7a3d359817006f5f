"""The distortions of training images that a suite may name; imports no torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)


class _Distortion(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _tuple(value: Any) -> Any:
    """Read YAML's list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


#: A pair of a smallest and a largest value.
Range = Annotated[tuple[float, float], BeforeValidator(_tuple)]

_Chance = Annotated[float, Field(ge=0, le=1)]


class Crop(_Distortion):
    """Shift the image: a random crop of its own size, after padding with black.

    Attributes:
        padding: pixels on each side.
    """

    padding: PositiveInt


class ResizedCrop(_Distortion):
    """Cut out a random rectangle, and resize it to the size of the image.

    Attributes:
        area: smallest and largest share of the image's area.
        ratio: smallest and largest ratio of width to height.
    """

    area: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _ranges(self) -> ResizedCrop:
        _check_range("area", self.area, 1.0)
        _check_range("ratio", self.ratio, float("inf"))
        return self


class Flip(_Distortion):
    """Exchange left and right.

    Attributes:
        chance: probability that an image is flipped.
    """

    chance: _Chance = 0.5


class Jitter(_Distortion):
    """Change brightness, then contrast, then saturation, each by a factor within 1 ± its parameter.

    Attributes:
        brightness: largest change of the brightness.
        contrast: largest change of the contrast, about the mean grey of the image.
        saturation: largest change of the saturation, of images with three channels.
    """

    brightness: float = Field(default=0.4, ge=0, le=1)
    contrast: float = Field(default=0.4, ge=0, le=1)
    saturation: float = Field(default=0.4, ge=0, le=1)


class Rotation(_Distortion):
    """Rotate about the centre; black moves in.

    Attributes:
        degrees: largest angle, to either side.
    """

    degrees: float = Field(ge=0, le=180)


class Affine(_Distortion):
    """Rotate, shear, scale and shift, by default as Koch et al. 2015 (section 3.2); black moves in.

    Attributes:
        chance: probability that an image is distorted at all.
        component: probability of each of the four, of an image that is distorted.
        degrees: largest angle, to either side.
        shear: largest shear of each axis, to either side.
        scale: smallest and largest scale of each axis.
        shift: largest shift along each axis, to either side, as a share of the image.
    """

    chance: _Chance = 8 / 9
    component: _Chance = 0.5
    degrees: float = Field(default=10.0, ge=0, le=180)
    shear: float = Field(default=0.3, ge=0, lt=1)
    scale: Range = (0.8, 1.2)
    shift: float = Field(default=2 / 28, ge=0, lt=1)

    @model_validator(mode="after")
    def _ranges(self) -> Affine:
        _check_range("scale", self.scale, float("inf"))
        return self


class Distortion(_Distortion):
    """One entry of ``train.augment``: the name of a distortion, and its parameters.

    Exactly one attribute is given.
    """

    crop: Crop | None = None
    resized_crop: ResizedCrop | None = None
    flip: Flip | None = None
    jitter: Jitter | None = None
    rotation: Rotation | None = None
    affine: Affine | None = None

    @model_validator(mode="after")
    def _one(self) -> Distortion:
        if len(self._given()) != 1:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"one distortion a line is needed, e.g. '- flip: {{}}'. Known distortions: {known}")
        return self

    @model_serializer(mode="wrap")
    def _named(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value is not None}

    @property
    def params(self) -> _Distortion:
        """Return the parameters: an instance of one of this module's classes."""
        return self._given()[0]

    def _given(self) -> list[_Distortion]:
        values = [getattr(self, name) for name in type(self).model_fields]
        return [value for value in values if value is not None]


def _check_range(name: str, limits: tuple[float, float], most: float) -> None:
    low, high = limits
    if not 0 < low <= high <= most:
        within = f"0 and {most:g}" if most != float("inf") else "0 and infinity"
        raise ValueError(f"{name} must be a pair [low, high] with low <= high, between {within}")
