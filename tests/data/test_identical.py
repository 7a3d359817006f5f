from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metabench import api
from metabench.data.identical import Findings, hash_images
from metabench.data.packing import DataRoots, load_splits
from metabench.errors import DataError
from metabench.packs import Pack

CLASSES, IMAGES = 9, 4


class Noise(api.Dataset):
    """Nine classes of four noisy images, each split three classes; a test copies some of them.

    Args:
        copies: pairs of the index of an image and the index of the image that replaces it.
        names: names of the classes.
        blank: number of images that become constant.
    """

    def __init__(self, *copies: tuple[int, int], names: tuple[str, ...] = tuple("abcdefghi"), blank: int = 0) -> None:
        super().__init__(api.Config())
        self.copies, self.names, self.blank = copies, names, blank

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        images = np.random.default_rng(0).integers(0, 256, (CLASSES * IMAGES, 1, 7, 7), dtype=np.uint8)
        for target, source in self.copies:
            images[target] = images[source]
        for index in range(self.blank):
            images[index] = index
        return Pack(images, np.arange(CLASSES + 1) * IMAGES, tuple(map(str, range(CLASSES))))

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        images = torch.tensor(pack.images)
        return {
            name: api.Split(images[12 * i : 12 * i + 12], torch.arange(4) * IMAGES, self.names[3 * i : 3 * i + 3])
            for i, name in enumerate(("train", "val", "test"))
        }


class OverlappingNoise(Noise):
    overlapping = True


class NoiseOfSharedClasses(Noise):
    overlapping = "classes"


class TrainIsTest(Noise):
    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        splits = super().split(pack)
        return {**splits, "test": splits["train"]}


class TrainIsTestRenamed(Noise):
    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        splits = super().split(pack)
        return {**splits, "test": replace(splits["train"], class_names=("g", "h", "i"))}


def findings(dataset: Noise, tmp_path: Path) -> Findings:
    return load_splits("noise", dataset, DataRoots((), tmp_path), lambda done, total, what: None).findings


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (TrainIsTest(), r"has 3 classes in more than one split, e\.g\. 'a' in train and test"),
        (Noise(names=("é", *"bcdefgh", "e\u0301")), "has 1 class in more than one split, e.g. 'é' in train and test"),
        (
            TrainIsTestRenamed(),
            r"has 12 images in .*image 0 of train \(class 'a'\) is image 0 of test",
        ),
        (
            Noise((13, 2)),
            r"has 1 image in .*image 2 of train \(class 'a'\) .* image 1 of val \(class 'd'\)",
        ),
        (Noise((30, 20), (31, 20)), r"has 1 image in more than one split, .* of val .* of test"),
    ],
)
def test_classes_and_images_in_two_splits_are_refused(dataset: Noise, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the dataset 'noise' {message}.*`overlapping = True`"):
        findings(dataset, tmp_path)


def test_a_dataset_may_allow_it_and_the_record_says_so(tmp_path: Path) -> None:
    found = findings(OverlappingNoise((13, 2), names=tuple("abcdefgha")), tmp_path)
    assert (found.overlapping, found.shared, found.shared_classes) == (True, 1, 1)
    assert found.remarks() == ["the dataset allows that its splits overlap: 1 class and 1 image in more than one"]


def test_a_dataset_may_allow_that_classes_are_shared_and_images_are_not(tmp_path: Path) -> None:
    found = findings(NoiseOfSharedClasses(names=tuple("abcdefgha")), tmp_path / "apart")
    assert (found.overlapping, found.shared, found.shared_classes) == (True, 0, 1)
    with pytest.raises(DataError, match="has 1 image in more than one split"):
        findings(NoiseOfSharedClasses((13, 2), names=tuple("abcdefgha")), tmp_path / "copied")


def test_identical_images_within_a_split_are_counted(tmp_path: Path) -> None:
    assert findings(Noise(), tmp_path / "none") == Findings()
    found = findings(Noise((1, 0), (2, 0), (26, 25), (28, 25)), tmp_path / "some")
    assert found.duplicates == {"train": 2, "test": 2}
    assert found.across_classes == {"test": 1}
    assert found.remarks() == [
        "2 images of train identical to another",
        "2 images of test identical to another, 1 of another class",
    ]


def test_constant_images_are_counted(tmp_path: Path) -> None:
    found = findings(Noise(blank=3), tmp_path)
    assert found.constant == {"train": 3}
    assert found.remarks() == ["3 images of train without any contrast"]


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32))
def test_images_have_equal_hashes_if_they_are_equal(count: int, pixels: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 2, (count, pixels), dtype=np.uint8)
    hashes = hash_images(images)
    for i in range(count):
        for j in range(count):
            assert (hashes[i] == hashes[j]) == np.array_equal(images[i], images[j])


def test_hashes_do_not_depend_on_the_number_of_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 5), dtype=np.uint8)
    np.testing.assert_array_equal(hash_images(images)[-3:], hash_images(images[-3:]))
