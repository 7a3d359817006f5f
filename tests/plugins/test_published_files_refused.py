"""Published datasets whose files are missing or strange: one message says which, and what to do."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import published_files as written
import small_published as small
from metabench.cli import cli
from metabench.data.packing import DataRoots, load_splits
from metabench.errors import DataError
from metabench.registry.manager import PluginManager
from metabench_plugins.raw.dataset import PublishedDataset
from metabench_plugins.raw.pickles import read_pickle

PUBLISHED = (
    *("miniimagenet", "tieredimagenet", "cifarfs", "fc100", "cub", "emnist"),
    *("eurosat", "cropdisease", "isic", "chestx"),
)


def silent(done: int, total: int, what: str) -> None:
    pass


def refusal(dataset: type[PublishedDataset], folder: Path, download: bool = False, **params: Any) -> str:
    """Return the message of a dataset that is refused, and leaves nothing half-written."""
    built = dataset(dataset.Config(**params))
    roots = DataRoots((folder / "data",), folder / "cache", download)
    with pytest.raises(DataError) as caught:
        load_splits(built.search.name, built, roots, silent)
    assert [path for path in (folder / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    return str(caught.value)


# ------------------------------------------------------------------------------------------ nothing there


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_dataset_is_one_message(
    tmp_path: Path, plugins: PluginManager, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("METABENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METABENCH_OFFLINE", "1")
    result = CliRunner().invoke(cli, ["data", "prepare", name])
    with pytest.raises(DataError) as caught:
        raise result.exception
    dataset = plugins.build_dataset(name)
    assert isinstance(dataset, PublishedDataset)
    message = str(caught.value)
    assert f"is missing: it is not in {tmp_path / 'data'} and its folders {name}" in message
    for form in dataset.search.forms:
        assert str(form) in message
    assert f"METABENCH_DATA/{name}" in message
    assert "`metabench run quickstart` needs no data." in message
    assert ("downloading is switched off" in message) == (name in ("cifarfs", "fc100", "emnist"))


def test_without_metabench_data_the_message_says_so(tmp_path: Path) -> None:
    built = small.SmallMini(small.SmallMini.Config())
    with pytest.raises(DataError, match="METABENCH_DATA, the folder of your datasets, is not set"):
        load_splits("miniimagenet", built, DataRoots((), tmp_path), silent)


def test_names_that_are_everybody_s_are_not_taken_for_a_dataset(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        written.class_folders(tmp_path / "data" / split, ["cat", "dog"], 1)
        (tmp_path / "data" / f"{split}.csv").write_text("filename,label\ncat_0.jpg,cat\n", encoding="utf-8")
        (tmp_path / "data" / f"{split}.pickle").write_bytes(b"")
    for dataset in (small.SmallMini, small.SmallTiered, small.SmallCifarFS, small.SmallCub):
        assert "is missing: it is not in" in refusal(dataset, tmp_path)


@pytest.mark.parametrize("works", [True, False])
def test_cifar100_is_downloaded_by_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], works: bool
) -> None:
    def download(root: str, download: bool) -> None:
        print("Downloading")
        if not works:
            raise OSError("no route to host")
        written.cifar100(Path(root))

    monkeypatch.setattr("torchvision.datasets.CIFAR100", download)
    (tmp_path / "data").mkdir()
    if works:
        built = small.SmallFC100(small.SmallFC100.Config())
        found = load_splits("fc100", built, DataRoots((tmp_path / "data",), tmp_path / "cache"), silent)
        assert len(found.splits["train"].class_names) == 60
        assert [path.name for path in (tmp_path / "cache").rglob(".*")] == [], "the download is deleted"
    else:
        message = refusal(small.SmallFC100, tmp_path, download=True)
        assert "and downloading it failed: no route to host" in message
    assert capfd.readouterr().out == "", "standard output is for results"


# ------------------------------------------------------------------------------------------ strange files


def change(path: Path, **changes: Any) -> None:
    """Write a pickled dictionary again, with other values."""
    content = read_pickle(path)
    content.update({key: change(content[key]) for key, change in changes.items()})
    written.write_pickle(path, content)


def rename_class(folder: Path, name: str) -> None:
    change(
        folder / "mini-imagenet-cache-val.pkl",
        class_dict=lambda rows: {name if wnid == "n02138441" else wnid: rows[wnid] for wnid in rows},
    )


def without(path: Path, text: str) -> None:
    """Remove the lines of a file that contain a text."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if text not in line), encoding="utf-8")


def wrong_labels(folder: Path) -> None:
    change(folder / "val_labels.pkl", labels=lambda labels: [min(label, 360) for label in labels])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def evil(path: Path) -> None:
    """Replace a file by a pickle that runs a command."""
    path.write_bytes(b"cos\nsystem\n(Vtrue\ntR.")


Sabotage = Callable[[Path], object]
MINI = (small.SmallMini, "miniimagenet", written.mini_caches)
MINI_B = (small.SmallMini, "miniimagenet", written.mini_pickles)
MINI_C = (small.SmallMini, "miniimagenet", written.mini_lists)
MINI_F = (small.SmallMini, "miniimagenet", written.mini_folders)
PNGS = (small.SmallTiered, "tieredimagenet", written.tiered_pngs)
ARRAYS = (small.SmallTiered, "tieredimagenet", written.tiered_arrays)
TIERED_C = (small.SmallTiered, "tieredimagenet", written.tiered_folders)
CIFAR = (small.SmallCifarFS, "cifarfs", written.cifar100)
CIFAR_TAR = (small.SmallCifarFS, "cifarfs", partial(written.cifar100, archive=True))
FC100 = (small.SmallFC100, "fc100", partial(written.cifar_pickles, name="FC100_{}.pickle"))
CUB = (small.SmallCub, "CUB_200_2011", written.cub)
EMNIST = (small.SmallEmnist, "EMNIST", written.emnist)
EUROSAT = (small.SmallEuroSat, "EuroSAT", written.eurosat)
CROP = (small.SmallCropDisease, "CropDiseases", written.cropdisease)
ISIC = (small.SmallIsic, "ISIC", written.isic)
CHEST = (small.ChestX, "chestX", written.chestx)
ALBUM = (small.MetaAlbum, "BRD", written.metaalbum)
BOXES: dict[str, Any] = {"bounding_boxes": True}
GROUND_TRUTH = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"

#: Dataset, folder and writer of a form; what is done to its files; a part of the message; parameters.
STRANGE: list[tuple[Any, Sabotage, str, dict[str, Any]]] = [
    (
        MINI,
        lambda f: (f / "mini-imagenet-cache-val.pkl").unlink(),
        "miniImageNet: {f} has mini-imagenet-cache-train.pkl, mini-imagenet-cache-test.pkl, but not "
        "mini-imagenet-cache-val.pkl or mini-imagenet-cache-validation.pkl: put it there",
        {},
    ),
    (MINI, lambda f: evil(f / "mini-imagenet-cache-test.pkl"), "mini-imagenet-cache-test.pkl asks for os.system", {}),
    (MINI, lambda f: cut(f / "mini-imagenet-cache-train.pkl"), "train.pkl cannot be read as a pickle", {}),
    (MINI, partial(rename_class, name="n00000001"), "has the class 'n00000001', which is not one of the 100", {}),
    (MINI, partial(rename_class, name="n01532829"), "has the class 'n01532829' in two splits", {}),
    (
        MINI,
        lambda f: change(f / "mini-imagenet-cache-val.pkl", class_dict=lambda rows: dict(list(rows.items())[1:])),
        "lacks 1 of the 100 classes of miniImageNet: n01855672",
        {},
    ),
    (
        MINI,
        lambda f: change(f / "mini-imagenet-cache-val.pkl", image_data=lambda images: images / 255),
        "must be uint8 [n, height, width, 3], and are float64 [48, 84, 84, 3]",
        {},
    ),
    (
        MINI,
        lambda f: change(f / "mini-imagenet-cache-val.pkl", image_data=lambda images: images[:40]),
        "class_dict of {f}/mini-imagenet-cache-val.pkl names rows beyond its 40 images",
        {},
    ),
    (
        MINI_B,
        lambda f: change(f / "miniImageNet_category_split_val.pickle", labels=lambda labels: labels[1:]),
        "must be 48 whole numbers, one for each image, and are int64 [47]",
        {},
    ),
    (
        MINI_B,
        lambda f: change(f / "miniImageNet_category_split_test.pickle", catname2label=lambda names: {}),
        "has the class 'label 80', which is not one of the 100",
        {},
    ),
    (MINI_C, lambda f: without(f / "val.csv", "n0185567200000001"), "has 2 images of the class 'n01855672'", {}),
    (
        MINI_C,
        lambda f: (f / "images" / "n0185567200000002.jpg").unlink(),
        "the image n0185567200000002.jpg of class 'n01855672' is missing: it was looked for as {f}/images/n018",
        {},
    ),
    (MINI_F, lambda f: cut(f / "test" / "n01930112" / "n01930112_1.jpg"), "1 image cannot be read", {}),
    (MINI_F, lambda f: os.rename(f / "val" / "n01855672", f / "val" / "cats"), "has the class 'cats', which is", {}),
    (PNGS, lambda f: (f / "test_labels.pkl").unlink(), "but not test_labels.pkl: put it there", {}),
    (
        ARRAYS,
        lambda f: (f / "val_images.npz").unlink(),
        "train_labels.pkl, val_labels.pkl, test_labels.pkl, but not val_images.npz: put it there",
        {},
    ),
    (PNGS, lambda f: cut(f / "val_images_png.pkl"), "val_images_png.pkl cannot be read as a pickle", {}),
    (
        PNGS,
        lambda f: change(f / "val_labels.pkl", label_specific=lambda labels: labels[:-1]),
        "has 194 PNG images, and {f}/val_labels.pkl 193 labels",
        {},
    ),
    (ARRAYS, wrong_labels, "has 10 classes: the splits of tieredImageNet have 351 (train), 97 (val), 160 (test)", {}),
    (ARRAYS, lambda f: cut(f / "train_images.npz"), "train_images.npz cannot be read (BadZipFile)", {}),
    (
        ARRAYS,
        lambda f: np.savez(f / "val_images.npz", data=np.zeros(3)),
        "val_images.npz has no array 'images'",
        {},
    ),
    (TIERED_C, lambda f: (f / "val" / "n00000001").mkdir(), "n00000001 has no images", {}),
    (TIERED_C, lambda f: os.rename(f / "val" / "n02099267", f / "val" / "n1"), "which is not one of the 608", {}),
    (CIFAR, lambda f: (f / "cifar-100-python" / "meta").unlink(), "but not cifar-100-python/meta: put it there", {}),
    (CIFAR, lambda f: evil(f / "cifar-100-python" / "train"), "cifar-100-python/train asks for os.system", {}),
    (
        CIFAR,
        lambda f: written.write_pickle(f / "cifar-100-python" / "test", {"data": np.zeros((1, 9), np.uint8)}),
        "data of {f}/cifar-100-python/test must be uint8 [n, 3072]",
        {},
    ),
    (
        CIFAR,
        lambda f: written.write_pickle(
            f / "cifar-100-python" / "meta", {"fine_label_names": ["apple"], "coarse_label_names": ["fruit"]}
        ),
        "the labels of {f}/cifar-100-python do not fit the names of {f}/cifar-100-python/meta",
        {},
    ),
    (CIFAR_TAR, lambda f: cut(f / "cifar-100-python.tar.gz"), "cifar-100-python.tar.gz cannot be read", {}),
    (
        CIFAR_TAR,
        lambda f: tarfile.open(f / "cifar-100-python.tar.gz", "w:gz").close(),
        "cifar-100-python.tar.gz cannot be read (KeyError",
        {},
    ),
    (
        FC100,
        lambda f: change(f / "FC100_val.pickle", labels=lambda labels: [max(label, 61) for label in labels]),
        "has no file of the 20 classes of val; numbers of classes: FC100_train.pickle 60, FC100_val.pickle 19",
        {},
    ),
    (
        (small.SmallCifarFS, "cifarfs", written.cifar_folders),
        lambda f: os.rename(f / "cifar100" / "data" / "seal", f / "cifar100" / "data" / "walrus"),
        "has the class 'walrus', which is not one of the 100 of CIFAR-100",
        {},
    ),
    (FC100, lambda f: (f / "FC100_val.pickle").unlink(), "but not FC100_val.pickle: put it there", {}),
    (FC100, lambda f: change(f / "FC100_val.pickle", data=lambda data: data[..., :1]), "are uint8 [60, 32, 32, 1]", {}),
    (
        FC100,
        lambda f: written.write_pickle(f / "FC100_test.pickle", [1]),
        "with the key 'data', and is one of list",
        {},
    ),
    (CUB, lambda f: (f / "bounding_boxes.txt").unlink(), "bounding_boxes.txt is missing, which bounding_boxes", BOXES),
    (CUB, lambda f: without(f / "bounding_boxes.txt", "17 "), "has no box for {f}/images/", BOXES),
    (CUB, lambda f: (f / "bounding_boxes.txt").write_text("1 2\n"), "line 1: it must have 5 words", BOXES),
    (
        CUB,
        lambda f: next((f / "images" / "200.Species_199").iterdir()).unlink(),
        "has 599 images in 200 classes of CUB-200-2011, expected 600",
        {},
    ),
    (CUB, lambda f: os.rename(f, f.with_name("elsewhere")), "CUB-200-2011 is missing", {}),
    (EMNIST, lambda f: cut(f / "raw" / "emnist-byclass-test-images-idx3-ubyte"), "is no IDX file of bytes with 3", {}),
    (
        EMNIST,
        lambda f: (f / "raw" / "emnist-byclass-test-labels-idx1-ubyte").unlink(),
        "but not emnist-byclass-test-labels-idx1-ubyte or emnist-byclass-test-labels-idx1-ubyte.gz: put it there",
        {},
    ),
    (
        EMNIST,
        lambda f: (f / "raw" / "emnist-byclass-test-labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1, 0, 0, 0, 62, *range(61), 62])
        ),
        "has the label 62, and EMNIST by class has 0 … 61",
        {},
    ),
    (EUROSAT, lambda f: os.rename(f / "2750" / "Use3", f / "Use3"), "has 27 images in 9 classes of EuroSAT", {}),
    (EUROSAT, lambda f: (f / "2750" / "Use3" / "Use3_0.jpg").write_bytes(b""), "1 image cannot be read", {}),
    (EUROSAT, lambda f: os.rename(f / "2750", f / "images"), "EuroSAT is missing", {}),
    (CROP, lambda f: (f / "dataset" / "train" / "empty").mkdir(), "empty has no images", {}),
    (CROP, lambda f: os.rename(f / "dataset" / "train", f / "train"), "CropDisease is missing", {}),
    (CROP, lambda f: written.class_folders(f / "dataset" / "train", ["more"], 1), "has 115 images in 39 classes", {}),
    (ISIC, lambda f: (f / GROUND_TRUTH).unlink(), "has ISIC2018_Task3_Training_Input, but not", {}),
    (ISIC, lambda f: (f / GROUND_TRUTH).write_text("image,MEL\n"), "has no column NV, but image, MEL", {}),
    (
        ISIC,
        lambda f: (f / GROUND_TRUTH).write_text("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_1,1,1,0,0,0,0,0\n"),
        "ISIC_1 has 2 classes, expected 1",
        {},
    ),
    (CHEST, lambda f: (f / "Data_Entry_2017.csv").unlink(), "has images, but not Data_Entry_2017.csv", {}),
    (CHEST, lambda f: (f / "Data_Entry_2017.csv").write_text("a,b\n"), "has no column Image Index, but a, b", {}),
    (CHEST, lambda f: next((f / "images").glob("00000002_*")).unlink(), "of class 'Effusion' is missing", {}),
    (
        ALBUM,
        lambda f: (f / "info.json").write_text("{"),
        "info.json must be JSON with image_column_name",
        {"root": "BRD"},
    ),
    (
        ALBUM,
        lambda f: (f / "info.json").write_text(json.dumps({"image_column_name": "a", "category_column_name": "b"})),
        "labels.csv has no column a, but FILE_NAME, CATEGORY, SUPER_CATEGORY",
        {"root": "BRD"},
    ),
    (ALBUM, lambda f: (f / "labels.csv").unlink(), "has info.json, but not labels.csv: put it there", {"root": "BRD"}),
    (ALBUM, lambda f: None, "the set MED of Meta-Album is missing", {"root": "MED"}),
]


@pytest.mark.parametrize(
    ("form", "sabotage", "message", "params"), STRANGE, ids=[f"{case[0][1]}: {case[2][:50]}" for case in STRANGE]
)
def test_a_strange_file_is_named(
    tmp_path: Path, form: Any, sabotage: Sabotage, message: str, params: dict[str, Any]
) -> None:
    dataset, place, write = form
    write(tmp_path / "data" / place)
    sabotage(tmp_path / "data" / place)
    said = refusal(dataset, tmp_path, **{"image_size": 8, **params})
    assert message.replace("{f}", str(tmp_path / "data" / place)) in said


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "data" / "cub").mkdir(parents=True)
    (tmp_path / "data" / "cub" / "CUB_200_2011.tgz").write_bytes(b"")
    assert "cub/CUB_200_2011.tgz is an archive: unpack it where it is" in refusal(small.SmallCub, tmp_path)
