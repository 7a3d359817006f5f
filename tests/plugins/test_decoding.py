"""Images are decoded as a person sees them, at the size that the papers give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision import transforms

from metabench.api import DataError
from metabench_plugins.images.classes import Photo, PhotoClass, packed
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.decoding import DamagedImage, decoded, on_all_cores
from picture_files import bomb, encoded, noise


def silent(done: int, total: int, what: str) -> None:
    pass


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (7, 7), (1, 50)])
def test_the_shorter_side_becomes_the_image_size(size: tuple[int, int]) -> None:
    image = noise(*size)
    expected = np.asarray(ImageOps.fit(image, (10, 10), Image.Resampling.LANCZOS))
    assert (decoded(encoded(image), ImageConfig(image_size=10)) == expected.transpose(2, 0, 1)).all()


@given(
    st.integers(12, 60),
    st.integers(12, 60),
    st.one_of(st.integers(12, 40), st.tuples(st.integers(12, 40), st.integers(12, 40))),
    st.sampled_from(["bilinear", "bicubic", "lanczos"]),
)
def test_resize_and_crop_are_those_of_torchvision(
    height: int, width: int, resize: int | tuple[int, int], interpolation: Any
) -> None:
    image = noise(height, width)
    config = ImageConfig(image_size=12, resize=resize, interpolation=interpolation)
    mode = transforms.InterpolationMode(interpolation)
    theirs = transforms.Compose(
        [
            transforms.Resize(resize if isinstance(resize, int) else list(resize), mode),
            transforms.CenterCrop(12),
        ]
    )
    assert (decoded(encoded(image), config) == np.asarray(theirs(image)).transpose(2, 0, 1)).all()


def test_a_narrow_strip_takes_little_memory() -> None:
    strip = Image.new("RGB", (600_000, 1), (10, 20, 30))
    assert decoded(encoded(strip), ImageConfig(image_size=84, resize=96)).mean(axis=(1, 2)).tolist() == [10, 20, 30]


def test_a_box_is_taken_before_the_resizing() -> None:
    image = Image.new("RGB", (40, 30))
    image.paste((9, 9, 9), (10, 5, 20, 15))
    assert (decoded(encoded(image), ImageConfig(image_size=5), box=(10, 5, 20, 15)) == 9).all()
    with pytest.raises(DamagedImage, match="has no pixel"):
        decoded(encoded(image), ImageConfig(image_size=5), box=(50, 5, 60, 15))


COLOUR = Image.new("RGB", (6, 6), (200, 100, 50))
GREY = np.full((6, 6), 120)
#: Images of one colour in each mode, and that colour as a person sees it.
MODES = {
    "1": (Image.new("1", (6, 6), 1), (255, 255, 255)),
    "L": (Image.new("L", (6, 6), 120), (120, 120, 120)),
    "LA": (Image.new("LA", (6, 6), (120, 255)), (120, 120, 120)),
    "La": (Image.new("LA", (6, 6), (120, 255)).convert("La"), (120, 120, 120)),
    "P": (COLOUR.convert("P", palette=Image.Palette.ADAPTIVE), (200, 100, 50)),
    "LAB": (Image.new("LAB", (6, 6), (255, 128, 128)), (255, 255, 255)),
    "RGBa": (COLOUR.convert("RGBA").convert("RGBa"), (200, 100, 50)),
    "I": (Image.fromarray(np.int32(257 * GREY)), (120, 120, 120)),
    "F": (Image.fromarray(np.float32(GREY / 255)), (120, 120, 120)),
    "I;16": (Image.frombytes("I;16", (6, 6), (257 * GREY).astype("<u2").tobytes()), (120, 120, 120)),
    "I;16B": (Image.frombytes("I;16B", (6, 6), (257 * GREY).astype(">u2").tobytes()), (120, 120, 120)),
    **{mode: (COLOUR.convert(mode), (200, 100, 50)) for mode in ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_seen_in_its_colours(mode: str) -> None:
    from metabench_plugins.images.modes import as_seen

    image, colour = MODES[mode]
    assert image.mode == mode
    assert np.abs(np.asarray(as_seen(image, False, (255, 255, 255)))[3, 3].astype(int) - colour).max() <= 2
    luma = round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
    assert abs(int(np.asarray(as_seen(image, True, (255, 255, 255)))[3, 3]) - luma) <= 2


def test_sixteen_bits_of_a_file_keep_their_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = decoded(encoded(Image.fromarray(ramp)), ImageConfig(image_size=16, channels=1))
    assert np.abs(pixels[0].astype(int) - ramp / 257).max() <= 1


def test_numbers_outside_all_scales_are_stretched() -> None:
    from metabench_plugins.images.modes import as_seen

    values = np.array([[-1000.0, 0.0, np.nan, 1000.0]], np.float32)
    assert np.asarray(as_seen(Image.fromarray(values), True, (0, 0, 0))).tolist() == [[0, 128, 128, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "tRNS"])
def test_transparent_pixels_show_the_ground(mode: str) -> None:
    options: dict[str, Any] = {}
    if mode == "P":
        image, options = Image.new("P", (6, 6), 0), {"transparency": 0}
        image.putpalette([1, 2, 3])
    elif mode == "tRNS":
        image, options = Image.new("RGB", (6, 6), (1, 2, 3)), {"transparency": (1, 2, 3)}
    else:
        image = Image.new(mode, (6, 6), 0)
    for ground in [(255, 255, 255), (10, 20, 30)]:
        found = decoded(encoded(image, **options), ImageConfig(image_size=4, ground=ground))
        assert found[:, 2, 2].tolist() == list(ground)


def test_exif_turns_the_image() -> None:
    image = Image.new("RGB", (20, 10))
    image.paste((250, 250, 250), (0, 0, 10, 10))  # the left half is bright; orientation 6 puts it on top
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decoded(encoded(image, "JPEG", exif=exif, quality=95), ImageConfig(image_size=10))
    assert (turned[:, 0].mean() > 200, turned[:, -1].mean() < 50) == (True, True)
    as_stored = decoded(encoded(image, "JPEG", quality=95), ImageConfig(image_size=10))
    assert (as_stored[:, :, 0].mean() > 200, as_stored[:, :, -1].mean() < 50) == (True, True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image that Pillow knows"),
        (b"text", "no image that Pillow knows"),
        (encoded(noise(40, 40))[:900], "truncated"),
        (bomb(50_000, 50_000), "more than 178956970 pixels"),
        (bomb(0, 5), r"\w+"),
        (encoded(noise(40, 40)).replace(b"IDAT", b"IDAX"), r"\w+"),
    ],
    ids=["empty", "text", "cut", "bomb", "no pixels", "strange chunk"],
)
def test_damage_has_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(DamagedImage, match=reason):
        decoded(content, ImageConfig())


def test_a_size_that_pillow_only_warns_of_is_refused() -> None:
    (found,) = on_all_cores(lambda content: decoded(content, ImageConfig()), [bomb(10_000, 10_000)])
    assert str(found) == "10000×10000 pixels, more than 89478485"


def test_results_come_in_order_and_damage_among_them() -> None:
    def call(number: int) -> int:
        if number % 7 == 3:
            raise DamagedImage(f"number {number}")
        return number * number

    results = list(on_all_cores(call, range(500)))
    assert [str(result) for result in results] == [
        f"number {number}" if number % 7 == 3 else str(number * number) for number in range(500)
    ]


def test_a_mistake_of_the_caller_is_no_damage() -> None:
    with pytest.raises(ZeroDivisionError):
        list(on_all_cores(lambda number: 1 // number, [1, 0]))


def classes(damaged: dict[str, set[int]]) -> list[PhotoClass]:
    return [
        PhotoClass(
            name,
            [
                Photo(
                    f"{i}.png", f"root/{name}/{i}.png", b"" if i in damaged.get(name, ()) else encoded(noise(9, 9, i))
                )
                for i in range(3)
            ],
        )
        for name in "abc"
    ]


def test_damaged_files_are_named_all_at_once() -> None:
    parts = packed(classes({"b": {1}, "c": {0, 2}}), ImageConfig(image_size=4), "reading", silent)
    assert next(parts).name == "a"
    with pytest.raises(DataError) as caught:
        next(parts)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 images cannot be read; replace them, or leave them out with `damaged: skip`:"
    assert [line.split(" (")[0].strip() for line in lines[1:]] == [
        "root/b/1.png",
        "root/c/0.png",
        "root/c/2.png",
    ]


def test_damaged_files_are_skipped_on_request() -> None:
    parts = list(packed(classes({"b": {1}}), ImageConfig(image_size=4, damaged="skip"), "reading", silent))
    assert [(part.name, len(part.images), part.image_names) for part in parts] == [
        ("a", 3, ["0.png", "1.png", "2.png"]),
        ("b", 2, ["0.png", "2.png"]),
        ("c", 3, ["0.png", "1.png", "2.png"]),
    ]
    (remark,) = parts[1].remarks
    assert remark.startswith("1 damaged file was skipped in class 'b': root/b/1.png (UnidentifiedImageError")


def test_a_class_of_damaged_files_only_is_refused() -> None:
    with pytest.raises(DataError, match=r"3 images cannot be read; their classes would be empty"):
        list(packed(classes({"b": {0, 1, 2}}), ImageConfig(image_size=4, damaged="skip"), "reading", silent))


def test_a_crop_larger_than_the_resized_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"resize is 80, smaller than the crop .* at least image_size, 84"):
        ImageConfig(image_size=84, resize=80)


def test_files_of_a_folder_are_decoded_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "ä.png").write_bytes(encoded(noise(9, 9)))
    assert decoded(tmp_path / "ä.png", ImageConfig(image_size=9)).shape == (3, 9, 9)
