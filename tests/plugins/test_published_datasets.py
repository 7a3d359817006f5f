"""Published datasets in every form: what is read from files that a script makes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import published_files as written
import small_published as small
from metabench.api import Split
from metabench.data.packing import DataRoots, LoadedDataset, load_splits
from metabench_plugins.raw.class_lists import SPLITS, class_list
from metabench_plugins.raw.dataset import PublishedDataset


def silent(done: int, total: int, what: str) -> None:
    pass


def loaded(dataset: type[PublishedDataset], folder: Path, download: bool = False, **params: Any) -> LoadedDataset:
    """Load a dataset from ``folder/data``, where METABENCH_DATA would point to."""
    built = dataset(dataset.Config(**params))
    return load_splits(built.search.name, built, DataRoots((folder / "data",), folder / "cache", download), silent)


CIFAR_NAMES = sorted(name for names in written.SUPERCLASSES.values() for name in names.split())


def number_of_tiered(name: str) -> int:
    lists = class_list("tieredimagenet")
    if "/" in name:
        split, number = name.split("/")
        return sum(len(lists[other]) for other in SPLITS[: SPLITS.index(split)]) + int(number)
    return [wnid for wnids in lists.values() for wnid in wnids].index(name)


def number_of_label(counts: tuple[int, int, int], name: str) -> int:
    split, number = name.split("/")
    return sum(counts[: SPLITS.index(split)]) + int(number)


@dataclass(frozen=True)
class Case:
    """A form of a dataset, and what must be read from it.

    Attributes:
        dataset: the class.
        place: the folder in METABENCH_DATA.
        write: writes the files.
        number: returns the number of the picture of a class.
        counts: numbers of classes of train, val and test.
        images: images of each class.
        params: parameters of the dataset.
        off: largest difference of a colour; JPEG changes some.
    """

    dataset: type[PublishedDataset]
    place: str
    write: Callable[[Path], None]
    number: Callable[[str], int]
    counts: tuple[int, int, int]
    images: int = 3
    params: Mapping[str, Any] = field(default_factory=dict)
    off: int = 0


mini = partial(Case, dataset=small.SmallMini, place="miniimagenet", number=written.mini_number, counts=(64, 16, 20))
tiered = partial(
    Case,
    dataset=small.SmallTiered,
    place="tiered-imagenet",
    number=number_of_tiered,
    counts=(351, 97, 160),
    images=2,
    params={"image_size": 16},
)
cifarfs = partial(Case, dataset=small.SmallCifarFS, place="cifarfs", number=CIFAR_NAMES.index, counts=(64, 16, 20))
fc100 = partial(Case, dataset=small.SmallFC100, place="fc100", counts=(60, 20, 20))
target = partial(Case, params={"image_size": 20}, off=3)

CASES: dict[str, Case] = {
    "mini caches": mini(write=written.mini_caches),
    "mini caches of Python 2": mini(write=partial(written.mini_caches, python2=True)),
    "mini caches of learn2learn": mini(write=partial(written.mini_caches, val="validation")),
    "mini pickles": mini(write=written.mini_pickles),
    "mini lists": mini(write=written.mini_lists, off=3),
    "mini lists of easyfsl": mini(write=partial(written.mini_lists, easyfsl=True), off=3),
    "mini folders": mini(write=written.mini_folders, off=3),
    "tiered pngs": tiered(write=written.tiered_pngs),
    "tiered pngs of Python 2": tiered(write=partial(written.tiered_pngs, python2=True)),
    "tiered arrays": tiered(write=written.tiered_arrays),
    "tiered arrays, compressed": tiered(write=partial(written.tiered_arrays, compressed=True)),
    "tiered folders": tiered(write=written.tiered_folders),
    "tiered lists of easyfsl": tiered(write=partial(written.tiered_folders, lists=True)),
    "cifarfs of CIFAR-100": cifarfs(write=written.cifar100),
    "cifarfs of its archive": cifarfs(write=partial(written.cifar100, archive=True)),
    "cifarfs pickles": cifarfs(write=written.cifar_pickles, number=partial(number_of_label, (64, 16, 20))),
    "cifarfs pickles of RFS": cifarfs(
        place="CIFAR-FS",
        write=partial(written.cifar_pickles, name="{}.pickle"),
        number=partial(number_of_label, (64, 16, 20)),
    ),
    "cifarfs folders": cifarfs(write=written.cifar_folders),
    "fc100 of CIFAR-100": fc100(
        place="cifar100",
        write=written.cifar100,
        number=lambda name: CIFAR_NAMES.index(name.split("/")[1]),
    ),
    "fc100 pickles": fc100(
        write=partial(written.cifar_pickles, name="FC100_{}.pickle"), number=partial(number_of_label, (60, 20, 20))
    ),
    "cub": Case(
        small.SmallCub,
        "CUB_200_2011",
        partial(written.cub, bird=False),
        lambda name: int(name[:3]) - 1,
        (100, 50, 50),
        params={"image_size": 30},
        off=3,
    ),
    "eurosat": target(small.SmallEuroSat, "EuroSAT", written.eurosat, lambda name: int(name[3:]), (10, 10, 10)),
    "cropdisease": target(
        small.SmallCropDisease, "CropDiseases", written.cropdisease, lambda name: int(name[-2:]), (38, 38, 38)
    ),
    "isic": target(
        small.SmallIsic, "ISIC", written.isic, ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC").index, (7, 7, 7)
    ),
    "metaalbum": Case(
        small.MetaAlbum,
        "metaalbum/BRD",
        written.metaalbum,
        lambda name: int(name.split()[1]),
        (8, 2, 2),
        params={"root": "BRD", "image_size": 20},
        off=3,
    ),
}


def number_and_index(image: torch.Tensor) -> tuple[int, int]:
    """Return the numbers of class and image that `written.picture` has drawn into an image."""
    red, left, right = (float(image[channel, -3, side]) for channel, side in ((0, 2), (1, 2), (1, -3)))
    index, low, high = (round(value / written.STEP) for value in (red, left, right))
    return low + 25 * high, index


def of_class(split: Split, c: int) -> torch.Tensor:
    """Return the images of a class."""
    return split.rows.take(torch.arange(int(split.offsets[c]), int(split.offsets[c + 1])))


@pytest.mark.parametrize("name", CASES)
def test_every_form_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    case.write(tmp_path / "data" / case.place)
    splits = loaded(case.dataset, tmp_path, **case.params).splits
    assert tuple(len(splits[split].class_names) for split in SPLITS) == case.counts
    side = case.dataset.Config(**case.params).model_dump()["image_size"]
    for split in splits.values():
        assert isinstance(split, Split)
        assert split.rows.shape == (3, side, side)
        for c, class_name in enumerate(split.class_names):
            images = of_class(split, c)
            expected = [(case.number(class_name), index) for index in range(case.images)]
            assert sorted(map(number_and_index, images)) == expected, class_name
            blue = images[:, 2, -1].to(torch.int32)
            assert (blue - written.BLUE).abs().max() <= case.off, "the channels are red, green and blue"


# -------------------------------------------------------------------------------------------- splits


def names(dataset: type[PublishedDataset], folder: Path, **params: Any) -> dict[str, list[str]]:
    return {name: sorted(split.class_names) for name, split in loaded(dataset, folder, **params).splits.items()}


@pytest.mark.parametrize("python2", [False, True])
def test_a_class_is_in_the_split_of_its_wnid_whatever_its_file_is_called(tmp_path: Path, python2: bool) -> None:
    folder = tmp_path / "data" / "mini-imagenet"
    written.mini_caches(folder, python2=python2)
    val, test, other = (folder / f"mini-imagenet-cache-{name}.pkl" for name in ("val", "test", "other"))
    val.rename(other), test.rename(val), other.rename(test)
    assert names(small.SmallMini, tmp_path) == {split: list(c) for split, c in class_list("miniimagenet").items()}


@pytest.mark.parametrize("write", [written.tiered_pngs, written.tiered_arrays])
def test_the_number_of_classes_tells_the_split_of_tieredimagenet(tmp_path: Path, write: Callable[[Path], None]) -> None:
    folder = tmp_path / "data" / "tieredimagenet"
    write(folder)
    before = loaded(small.SmallTiered, tmp_path, image_size=8).fingerprint
    for path in sorted(folder.glob("val_*")):
        test, other = (path.with_name(path.name.replace("val", name)) for name in ("test", "other"))
        path.rename(other), test.rename(path), other.rename(test)
    assert loaded(small.SmallTiered, tmp_path, image_size=8).fingerprint == before


def test_the_number_of_classes_tells_the_split_of_cifarfs(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifarfs"
    written.cifar_pickles(folder)
    before = loaded(small.SmallCifarFS, tmp_path).fingerprint
    val, test, other = (folder / f"CIFAR_FS_{name}.pickle" for name in ("val", "test", "other"))
    val.rename(other), test.rename(val), other.rename(test)
    assert loaded(small.SmallCifarFS, tmp_path).fingerprint == before


def test_arrays_and_png_images_of_tieredimagenet_are_one_dataset(tmp_path: Path) -> None:
    fingerprints = set()
    for name, write in (("pngs", written.tiered_pngs), ("arrays", written.tiered_arrays)):
        write(tmp_path / name / "data" / "tieredimagenet")
        fingerprints.add(loaded(small.SmallTiered, tmp_path / name, image_size=16).fingerprint)
        assert [path.name for path in (tmp_path / name / "cache").rglob(".*")] == [], "copies of arrays are deleted"
    assert len(fingerprints) == 1


def test_both_splits_of_cub_share_a_pack_and_no_class(tmp_path: Path) -> None:
    written.cub(tmp_path / "data" / "CUB_200_2011")
    both = [names(small.SmallCub, tmp_path, image_size=8, split=split) for split in ("chen", "meta-dataset")]
    numbers = [{split: [int(name[:3]) for name in found[split]] for split in SPLITS} for found in both]
    assert numbers[0] == {
        "train": list(range(1, 201, 2)),
        "val": list(range(2, 201, 4)),
        "test": list(range(4, 201, 4)),
    }
    assert [len(numbers[1][split]) for split in SPLITS] == [140, 30, 30]
    assert len(set().union(*numbers[1].values())) == 200
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1


def test_birds_are_cropped_to_their_bounding_boxes(tmp_path: Path) -> None:
    written.cub(tmp_path / "data" / "CUB_200_2011")
    cropped = loaded(small.SmallCub, tmp_path, image_size=8, bounding_boxes=True)
    assert all(int(part.min()) >= 245 for split in cropped.splits.values() for part in split.rows.parts())


def test_all_classes_of_miniimagenet_train_for_other_domains(tmp_path: Path) -> None:
    written.mini_pickles(tmp_path / "data" / "miniimagenet")
    found = loaded(small.SmallMini, tmp_path, train_on="all", normalise="imagenet")
    assert [len(found.splits[split].class_names) for split in SPLITS] == [100, 16, 20]
    assert found.splits["train"].mean == (0.485, 0.456, 0.406)
    assert any("36 classes and 108 images in more than one" in line for line in found.findings.remarks())


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("invert", [False, True])
def test_characters_of_emnist_stand_upright(tmp_path: Path, compressed: bool, invert: bool) -> None:
    written.emnist(tmp_path / "data" / "EMNIST", compressed=compressed)
    splits = loaded(small.SmallEmnist, tmp_path, invert=invert).splits
    assert splits["test"].class_names[:6] == ["1", "3", "5", "7", "9", "B"]
    assert splits["val"].class_names[:6] == ["0", "2", "4", "6", "8", "A"]
    assert splits["train"].class_names == splits["val"].class_names
    for split in ("val", "test"):
        for c, name in enumerate(splits[split].class_names):
            number = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(name)
            images = of_class(splits[split], c)
            expected = np.stack([written.picture(number, i, 28)[..., 1] + np.uint8(i) for i in range(3)])
            found = {image.numpy().tobytes() for image in (255 - images if invert else images)}
            assert found == {image.tobytes() for image in expected}


def test_radiographs_with_one_of_seven_findings_are_read(tmp_path: Path) -> None:
    written.chestx(tmp_path / "data" / "chestX")
    found = names(small.ChestX, tmp_path, channels=1, image_size=16)
    assert set(found["test"]) == {
        *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax"),
    }


@pytest.mark.parametrize("columns", [("FILE_NAME", "CATEGORY"), ("picture", "species")])
def test_a_set_of_meta_album_says_which_columns_it_has(tmp_path: Path, columns: tuple[str, str]) -> None:
    written.metaalbum(tmp_path / "data" / "BRD", columns=columns)
    one = names(small.MetaAlbum, tmp_path, root="BRD", image_size=8)
    other = names(small.MetaAlbum, tmp_path, root="BRD", image_size=8, seed=1)
    kinds = sorted(f"kind {number}" for number in range(12))
    assert sorted(chain.from_iterable(one.values())) == sorted(chain.from_iterable(other.values())) == kinds
    assert one != other


def test_splits_are_the_published_ones() -> None:
    """The lists of few-shot-ssl-public, easyfsl, torchmeta and learn2learn, where somebody keeps them."""
    sources = DataRoots.from_environment(os.environ).sources
    folder = next((source.parent / "splits" for source in sources if (source.parent / "splits").is_dir()), None)
    if folder is None:
        pytest.skip("no folder `splits` with the class lists of other projects beside METABENCH_DATA")
    files = {
        "miniimagenet": "mini_imagenet_wnids",
        "tieredimagenet": "tiered_imagenet_wnids",
        "cifarfs": "cifar_fs",
        "fc100": "fc100_superclasses",
        "cub": "cub_140_30_30",
    }
    for name, file in files.items():
        published = json.loads((folder / f"{file}.json").read_text(encoding="utf-8"))
        short = 3 if name == "cub" else None
        expected = {split: sorted(item[:short] for item in published[split]) for split in SPLITS}
        assert {split: sorted(items) for split, items in class_list(name).items()} == expected
    chen = json.loads((folder / "cub_100_50_50.json").read_text(encoding="utf-8"))
    species = sorted(name for split in SPLITS for name in chen[split])
    members = small.SmallCub(small.SmallCub.Config()).members(species)
    assert {split: [species[c] for c in members[split]] for split in SPLITS} == {s: sorted(chen[s]) for s in SPLITS}


def test_cifar100_has_the_superclasses_of_the_list() -> None:
    assert set(written.SUPERCLASSES) == set(chain.from_iterable(class_list("fc100").values()))
    assert sorted(chain.from_iterable(class_list("cifarfs").values())) == CIFAR_NAMES
