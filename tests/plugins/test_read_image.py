"""An image file of one's own becomes pixels as those of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from metabench.api import DataError, Dataset
from metabench.registry.manager import PluginManager
from picture_files import noise

#: Reads an image as a file of the named dataset, with parameters.
Read = Callable[..., npt.NDArray[np.uint8]]

WIDE = noise(20, 40)


@pytest.fixture
def read(tmp_path: Path, plugins: PluginManager) -> Read:
    """Return a function that lets a dataset read an image as a file."""

    def pixels(image: Image.Image, name: str, **params: object) -> npt.NDArray[np.uint8]:
        path = tmp_path / "image.png"
        image.save(path)
        dataset = plugins.build_dataset(name, params)
        assert isinstance(dataset, Dataset)
        return dataset.read_image(path)

    return pixels


@pytest.mark.parametrize("invert", [True, False])
def test_omniglot_reads_drawings_as_its_own(read: Read, invert: bool) -> None:
    drawing = Image.fromarray(np.random.default_rng(0).random((105, 105)) < 0.8)
    expected = np.asarray(drawing.convert("L").resize((28, 28), Image.Resampling.LANCZOS))
    assert np.array_equal(read(drawing, "omniglot", invert=invert), [255 - expected if invert else expected])


def test_emnist_inverts_where_its_parameter_says_so(read: Read) -> None:
    assert np.array_equal(read(WIDE, "emnist"), 255 - read(WIDE, "emnist", invert=True))


def test_metadataset_stretches_and_others_cut(read: Read) -> None:
    stretched = np.asarray(WIDE.resize((10, 10), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    middle = WIDE.resize((10, 10), Image.Resampling.LANCZOS, box=(10, 0, 30, 20))
    cut = np.asarray(middle).transpose(2, 0, 1)
    assert np.array_equal(read(WIDE, "metadataset", records="unread", image_size=10), stretched)
    assert np.array_equal(read(WIDE, "cifarfs", image_size=10), cut)
    assert np.array_equal(read(WIDE, "folder", image_size=10, root="unread"), cut)


def test_a_damaged_file_has_its_reason(tmp_path: Path, plugins: PluginManager) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    dataset = plugins.build_dataset("cifarfs")
    assert isinstance(dataset, Dataset)
    with pytest.raises(DataError, match="no image that Pillow knows"):
        dataset.read_image(tmp_path / "cut.png")
