from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from metabench.engine.pictures import episode_png, label_lines


def picture_of(channels: int, size: int, way: int, shot: int, queries: int, wrong: bool) -> Image.Image:
    images = np.random.default_rng(0).normal(size=(way * (shot + queries), channels, size, size)).astype(np.float32)
    support, query = np.repeat(np.arange(way), shot), np.repeat(np.arange(way), queries)
    predicted = (query + 1) % way if wrong else query
    file = episode_png(images[: len(support)], support, images[len(support) :], query, predicted)
    with Image.open(io.BytesIO(file)) as picture:
        picture.load()
        return picture


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 84])
@pytest.mark.parametrize(("way", "shot", "queries"), [(5, 1, 15), (20, 10, 5), (2, 1, 1)])
def test_any_episode_fits_a_page(channels: int, size: int, way: int, shot: int, queries: int) -> None:
    picture = picture_of(channels, size, way, shot, queries, wrong=True)
    assert picture.width < 900
    assert 30 * way < picture.height < 80 * way


def test_only_misclassified_queries_are_framed() -> None:
    def red_pixels(picture: Image.Image) -> int:
        red, green, blue = (np.asarray(band, dtype=int) for band in picture.convert("RGB").split())
        return int(((red > 150) & (green < 80) & (blue < 90)).sum())

    assert red_pixels(picture_of(1, 28, 5, 1, 5, wrong=False)) == 0
    assert red_pixels(picture_of(1, 28, 5, 1, 5, wrong=True)) > 1000


def test_colours_are_kept() -> None:
    images = np.zeros((4, 3, 8, 8), dtype=np.float32)
    images[:, 1] = 1.0
    with Image.open(io.BytesIO(episode_png(images[:2], [0, 1], images[2:], [0, 1], [0, 1]))) as picture:
        assert (0, 255, 0) in {colour for _, colour in picture.convert("RGB").getcolors() or []}


@pytest.mark.parametrize("name", ["a", "Alphabet_of_the_Magi/character03/rot090", "ほげ\x00", "word " * 9, "x" * 200])
def test_the_name_of_a_class_is_written_beside_its_row(name: str) -> None:
    lines = label_lines(4, ["", "", "", "", name])
    assert lines[0].startswith("5 ")
    assert len(lines) <= 4
    assert all(len(line) <= 18 and line.isascii() for line in lines)
    if len(name) < 60 and name.isascii() and name.isprintable():
        assert "".join(lines).replace(" ", "") == f"5{name}".replace(" ", "")
    images = np.zeros((2, 1, 28, 28), dtype=np.float32)
    names = [name, "other"]
    with Image.open(io.BytesIO(episode_png(images, [0, 1], images, [0, 1], [1, 0], names))) as picture:
        assert picture.width > 2 * 28 + 6 * len(lines[0])


def test_images_that_are_left_out_are_counted() -> None:
    """The picture of more misclassified queries than fit differs from that of as many as fit."""

    def ink_at_the_right(queries: int) -> int:
        images = np.zeros((1 + queries, 1, 28, 28), dtype=np.float32)
        file = episode_png(images[:1], [0], images[1:], [0] * queries, [1] * queries)
        with Image.open(io.BytesIO(file)) as picture:
            return int((np.asarray(picture.convert("L"))[:, -24:] < 100).sum())

    assert ink_at_the_right(8) == 0
    assert ink_at_the_right(9) > 5
