"""Test images that weights may have seen in their pretraining, or in a training on another dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from metabench.api import TensorRows
from metabench.data.identical import hash_images
from metabench.data.pretraining import count_shared, remarks_on_pretraining
from metabench.registry.manager import PluginManager


def test_a_declaration_of_the_dataset_is_repeated() -> None:
    found_in = {"ImageNet": "its classes are in it", "LAION": "nobody knows"}
    said = "the weights were pretrained on ImageNet-21k, ImageNet-1k: its classes are in it"
    assert remarks_on_pretraining("ImageNet-21k, ImageNet-1k", found_in, ["flamingo"]) == [said]


@pytest.mark.parametrize("pretrained_on", ["", "LAION-2B", "moths"])
def test_nothing_is_said_of_images_that_nobody_knows(pretrained_on: str) -> None:
    assert remarks_on_pretraining(pretrained_on, {"ImageNet": "its classes are in it"}, ["flamingo"]) == []


@pytest.mark.parametrize("name", ["grand piano", "Grand_Piano", "music/grand-piano"])
def test_names_of_imagenet_are_found_however_they_are_written(name: str) -> None:
    (remark,) = remarks_on_pretraining("ImageNet-1k", {}, [name, "piano stool", "0017"])
    assert remark.endswith(f"1 of 3 test classes have names of its classes ({name})")


def test_test_classes_without_names_of_imagenet_get_no_remark() -> None:
    assert remarks_on_pretraining("ImageNet-1k", {}, ["gizmo", "0017"]) == []


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("miniimagenet", {}),
        ("tieredimagenet", {}),
        ("cub", {}),
        ("metadataset", {"records": "RECORDS/ilsvrc_2012"}),
        ("metadataset", {"records": "RECORDS/cu_birds"}),
    ],
)
def test_datasets_that_have_images_of_imagenet_declare_it(name: str, params: dict[str, str]) -> None:
    dataset = PluginManager.from_environment().build_dataset(name, params)
    assert list(dataset.found_in) == ["ImageNet"]  # type: ignore[union-attr]


def rows(count: int, seed: int, *copies: tuple[int, torch.Tensor]) -> torch.Tensor:
    images = torch.randint(0, 256, (count, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    for index, image in copies:
        images[index] = image
    return images


def kept(path: Path, **splits: torch.Tensor) -> Path:
    np.savez(path, **{name: hash_images(images.numpy()) for name, images in splits.items()})
    return path


def test_every_copied_test_image_counts_once(tmp_path: Path) -> None:
    train = rows(20, 0)
    train[7] = train[3]  # twice in the training images
    test = rows(12, 1, (2, train[3]), (5, train[3]), (11, train[19]))
    hashes = kept(tmp_path / "a.npz", train=train, test=rows(3, 2)), kept(tmp_path / "b.npz", train=train, test=test)
    assert count_shared(TensorRows(train), hashes[0], TensorRows(test), hashes[1]) == 3
    assert count_shared(TensorRows(train), hashes[0], TensorRows(rows(3, 2)), hashes[0]) == 0


def test_images_with_equal_hashes_are_compared(tmp_path: Path) -> None:
    train, test = rows(4, 0), rows(3, 1)
    np.savez(tmp_path / "same.npz", train=np.ones(4, np.uint64), test=np.ones(3, np.uint64))
    same = tmp_path / "same.npz"
    assert count_shared(TensorRows(train), same, TensorRows(test), same) == 0
    test[1] = train[2]
    assert count_shared(TensorRows(train), same, TensorRows(test), same) == 1


def test_without_the_hashes_the_number_is_unknown(tmp_path: Path) -> None:
    train, test = rows(4, 0), rows(3, 1)
    there = kept(tmp_path / "a.npz", train=train, test=test)
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    for missing in (tmp_path / "none.npz", tmp_path / "damaged.npz"):
        assert count_shared(TensorRows(train), there, TensorRows(test), missing) is None
    assert count_shared(TensorRows(train[:2]), there, TensorRows(test), there) is None, "of other images"
