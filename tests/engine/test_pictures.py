from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from metabench.engine.pictures import episode_png


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
