"""Pickles of strangers: what is read, and what is refused before it runs."""

from __future__ import annotations

import collections
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metabench.errors import DataError
from metabench_plugins.raw.pickles import as_text, item, png_at, png_positions, read_pickle
from published_files import png, write_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
CONTENT = {
    "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "big": np.arange(300, dtype=">i4"),
    "number": np.int64(3),
    "share": np.float32(0.5),
    "labels": [1, 2, 3],
    "classes": collections.OrderedDict(a=(0, 1)),
    "rows": collections.defaultdict(list, b=[2]),
    "seen": {1, 2},
    "none": None,
}


def silent(done: int, total: int, what: str) -> None:
    pass


def assert_equal(read: Any, written: Any) -> None:
    assert list(map(as_text, read)) == list(written)
    for key, value in zip(read, written, strict=True):
        np.testing.assert_equal(read[key], written[value])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_and_containers_are_read_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    write_pickle(tmp_path / "p.pkl", CONTENT, protocol=protocol)
    assert_equal(read_pickle(tmp_path / "p.pkl"), CONTENT)


@pytest.mark.parametrize("name", ["numpy.core", "numpy._core"])
def test_the_names_of_numpy_1_and_2_are_known(tmp_path: Path, name: str) -> None:
    content = pickle.dumps({"x": np.arange(3), "y": np.float64(2)}, protocol=2)
    content = content.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", name.encode())
    (tmp_path / "p.pkl").write_bytes(content)
    np.testing.assert_equal(read_pickle(tmp_path / "p.pkl"), {"x": np.arange(3), "y": 2.0})


def test_pickles_of_python_2_have_bytes_for_texts(tmp_path: Path) -> None:
    path = tmp_path / "p.pkl"
    images = np.arange(2000, dtype=np.uint8).reshape(2, 1000)
    write_pickle(path, {"data": images, "names": ["n01", "n02"]}, python2=True)
    content = read_pickle(path)
    assert set(content) == {b"data", b"names"}
    np.testing.assert_equal(item(path, content, "data"), images)
    assert list(map(as_text, item(path, content, "names"))) == ["n01", "n02"]


class Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_that_runs_code_is_refused_before_it_runs(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "p.pkl"
    write_pickle(path, {"image_data": [Runs(tmp_path / "ran")]}, protocol=protocol)
    with pytest.raises(DataError, match=r"p\.pkl asks for (posix|nt)\.mkdir, which is neither an array nor"):
        read_pickle(path)
    assert not (tmp_path / "ran").exists()


#: Ways from an admitted object to others, which a list of names must not open.
REFUSED = {
    "eval": b"cbuiltins\neval\n(V1\ntR.",
    "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nV__class__\ntR.",
    "dotted": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "load": b"cnumpy\nload\n(V/etc/passwd\ntR.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pid\n.",
    "os of a submodule": b"cnumpy.core.multiarray\nos\n.",
}


@pytest.mark.parametrize("name", REFUSED)
def test_names_beyond_the_list_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.pkl").write_bytes(REFUSED[name])
    with pytest.raises(DataError, match=r"p\.pkl (asks for|cannot be read)"):
        read_pickle(tmp_path / "p.pkl")


def complaint(read: Callable[[Path], Any], path: Path) -> str:
    """Return the message of a reader; empty if it has none."""
    try:
        read(path)
    except DataError as error:
        return str(error)
    return ""


@given(st.binary(max_size=60))
def test_bytes_that_are_no_pickle_are_one_message(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(content)
    for read in (read_pickle, partial(png_positions, progress=silent)):
        assert complaint(read, path) == "" or str(path) in complaint(read, path)


@pytest.mark.parametrize("content", [{"image": 1}, [1, 2], None])
def test_a_missing_key_is_named_with_those_that_are_there(tmp_path: Path, content: Any) -> None:
    there = "image" if isinstance(content, dict) else type(content).__name__
    with pytest.raises(DataError, match=rf"p\.pkl must be a pickled dictionary with the key 'data'.*{there}"):
        item(tmp_path / "p.pkl", content, "data")


@pytest.mark.parametrize("protocol", ["python2", *PROTOCOLS])
def test_png_images_are_found_without_loading_the_list(tmp_path: Path, protocol: int | str) -> None:
    rng = np.random.default_rng(0)
    images = [png(rng.integers(0, 256, (size, 9, 3), np.uint8)) for size in (1, 5, 200)]
    path, arrays = tmp_path / "p.pkl", [np.frombuffer(content, np.uint8)[:, None].copy() for content in images]
    if protocol == "python2":
        write_pickle(path, arrays, python2=True)
    else:
        write_pickle(path, arrays, protocol=int(protocol))
    positions = png_positions(path, silent)
    with open(path, "rb") as file:
        assert [png_at(file, int(position)) for position in positions[::-1]] == images[::-1]
