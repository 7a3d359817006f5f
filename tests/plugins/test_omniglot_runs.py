"""The one-shot runs of Omniglot's authors, as a test split."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from test_omniglot import SmallOmniglot, png, small_files, write_folders

from metabench.api import SplitSize
from metabench.data.episodes_files import read_episodes_file
from metabench.data.fixed_episodes import FixedEpisodes
from metabench.data.order import Order
from metabench.data.packing import DataRoots, load_pack
from metabench.errors import DataError
from metabench.packs import Pack
from metabench_plugins.datasets.omniglot_runs import OmniglotRuns, OmniglotRunsConfig

LABELS = {
    "run01": "run01/test/item01.png run01/training/class02.png\nrun01/test/item02.png run01/training/class01.png\n",
    "run02": "run02/test/item02.png run02/training/class02.png\nrun02/test/item01.png run02/training/class01.png\n",
}


class SmallRuns(OmniglotRuns):
    """Expects two runs of two characters, beside the small Omniglot."""

    parts: ClassVar = SmallOmniglot.parts
    drawings = SmallOmniglot.drawings
    sha256 = SmallOmniglot.sha256
    runs = (2, 2)


def run_files() -> dict[str, bytes]:
    files = {f"{run}/class_labels.txt": lines.encode() for run, lines in LABELS.items()}
    names = [f"{run}/{kind}0{i}.png" for run in LABELS for kind in ("training/class", "test/item") for i in (1, 2)]
    return {**files, **{name: png(seed=1000 + i) for i, name in enumerate(names)}}


def load(tmp_path: Path, **config: Any) -> Pack:
    roots = DataRoots((tmp_path / "data",), tmp_path / "cache", download=False)
    return load_pack("omniglot-runs", SmallRuns(OmniglotRunsConfig(**config)), roots, lambda done, total, what: None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the folder of the small Omniglot, without runs."""
    write_folders(tmp_path / "data" / "omniglot", small_files())
    return tmp_path / "data" / "omniglot"


def write_zip(path: Path, files: dict[str, bytes], folder: str = "") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/run01/._class_labels.txt", "x")
        for name, content in files.items():
            archive.writestr(f"{folder}{name}", content)


def test_folder_and_zip_give_the_same_pack(data: Path, tmp_path: Path) -> None:
    write_folders(data / "all_runs", run_files())
    of_folder = load(tmp_path)
    (data / "all_runs").rename(tmp_path / "elsewhere")
    for folder in ("", "all_runs/"):
        write_zip(data / "all_runs.zip", run_files(), folder)
        assert load(tmp_path).fingerprint == of_folder.fingerprint
    assert of_folder.class_names[5:] == tuple(f"run0{r}/training/class0{c}" for r in (1, 2) for c in (1, 2))
    assert of_folder.offsets.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert of_folder.image_names is not None
    assert of_folder.image_names[10:12] == ("run01/training/class01.png", "run01/test/item02.png")


def test_the_episodes_of_the_runs_pair_the_images(data: Path, tmp_path: Path) -> None:
    write_folders(data / "all_runs", run_files())
    pack = load(tmp_path, image_size=105, invert=False)
    test = SmallRuns(OmniglotRunsConfig(image_size=105, invert=False)).test_split(pack)
    _, episodes = read_episodes_file(data / "all_runs")
    order = Order.of(test)
    drawn = FixedEpisodes(episodes, test, order, "0" * 32).draw(0, 2)
    names = test.image_names
    assert names is not None
    for i, run in enumerate(LABELS):
        support = {y: names[order.images[x]] for x, y in zip(drawn.support[i], drawn.support_labels[i], strict=True)}
        pairs = {
            f"{names[order.images[x]]} {support[y]}" for x, y in zip(drawn.query[i], drawn.query_labels[i], strict=True)
        }
        assert pairs == set(LABELS[run].splitlines())


def test_images_are_those_of_the_files_inverted(data: Path, tmp_path: Path) -> None:
    write_folders(data / "all_runs", run_files())
    pack = load(tmp_path, image_size=105)
    test = SmallRuns(OmniglotRunsConfig(image_size=105)).test_split(pack)
    assert torch.equal(test.rows.take(torch.arange(8)), 255 - torch.tensor(pack.images[10:]))
    assert len(np.unique(pack.images[10:].reshape(8, -1), axis=0)) == 8


def test_train_and_val_are_the_background_characters(omniglot_pack: Pack) -> None:
    runs = np.zeros((4, *omniglot_pack.images.shape[1:]), np.uint8)
    pack = Pack(
        np.concatenate([omniglot_pack.images, runs]),
        np.append(omniglot_pack.offsets, [32462, 32464]),
        (*omniglot_pack.class_names, "run01/training/class01", "run01/training/class02"),
        tuple(map(str, range(32464))),
    )
    dataset = OmniglotRuns(OmniglotRunsConfig())
    splits = dataset.split(pack)
    assert dataset.sizes() == {"train": SplitSize(3168, 20), "val": SplitSize(172, 20), "test": SplitSize(400, 2)}
    assert {name: splits[name].size for name in ("train", "val")} == {
        name: size for name, size in dataset.sizes().items() if name != "test"
    }
    assert splits["test"].size == SplitSize(2, 2)
    assert {name.split("/")[0] for name in splits["train"].class_names} == {"images_background"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run02/class_labels.txt": None}, r"has 1 runs with class_labels\.txt, expected 2"),
        (
            {"run02/class_labels.txt": b"run02/test/item01.png run02/training/class01.png\n"},
            r"run02/class_labels\.txt in .* pairs 1 training images with test images in 1 lines, expected 2 of each",
        ),
        ({"run01/test/item02.png": None}, r"has no run01/test/item02\.png, which a class_labels\.txt names"),
        ({"run01/test/item02.png": b"no image"}, r"run01/test/item02\.png in .* is damaged"),
    ],
)
def test_runs_that_are_not_the_authors_are_refused(
    data: Path, tmp_path: Path, changes: dict[str, bytes | None], message: str
) -> None:
    files = {name: content for name, content in {**run_files(), **changes}.items() if content is not None}
    write_folders(data / "all_runs", files)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_missing_runs_are_said_where_to_get(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"METABENCH_DATA/omniglot/all_runs\.zip"):
        load(tmp_path)
