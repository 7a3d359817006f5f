from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metabench import api
from metabench.data.packing import DataRoots, load_splits
from metabench.errors import DataError
from metabench.packs import Pack

CLASSES, IMAGES = 9, 4


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


N = CLASSES * IMAGES


def good_pack() -> Pack:
    images = np.random.default_rng(0).integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)
    return Pack(images, np.arange(CLASSES + 1) * IMAGES, tuple(f"class {c}" for c in range(CLASSES)))


def good_splits(pack: Pack) -> dict[str, api.Split]:
    images = torch.tensor(pack.images)
    return {
        name: api.Split(
            images[12 * i : 12 * i + 12],
            torch.arange(4) * IMAGES,
            pack.class_names[3 * i : 3 * i + 3],
            mean=(0.5, 0.4, 0.3),
            std=(0.2,),
            groups=[0, 1, 1],
            image_names=[f"{n}.png" for n in range(12)],
        )
        for i, name in enumerate(("train", "val", "test"))
    }


def good_sizes() -> dict[str, api.SplitSize]:
    return dict.fromkeys(("train", "val", "test"), api.SplitSize(3, IMAGES))


class Patched(api.Dataset):
    """A good dataset whose pack, splits or sizes a test changes."""

    def __init__(self, **changes: Callable[[Any], Any]) -> None:
        super().__init__(api.Config())
        self.changes = changes

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        return self.changed("pack", good_pack())

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        return self.changed("split", good_splits(pack))

    def sizes(self) -> Mapping[str, api.SplitSize]:
        return self.changed("sizes", good_sizes())

    def changed(self, method: str, value: Any) -> Any:
        return self.changes.get(method, lambda value: value)(value)


def load(tmp_path: Path, **changes: Callable[[Any], Any]) -> Mapping[str, api.Split]:
    roots = DataRoots((), tmp_path)
    return load_splits("mine", Patched(**changes), roots, lambda done, total, what: None).splits


def pack_with(**fields: Any) -> dict[str, Callable[[Any], Any]]:
    return {"pack": lambda pack: replace(pack, **fields)}


def val_with(**fields: Any) -> dict[str, Callable[[Any], Any]]:
    return {"split": lambda splits: {**splits, "val": replace(splits["val"], **fields)}}


IMAGES_OF = good_pack().images
VAL = good_splits(good_pack())["val"].images
RAISED = np.arange(CLASSES + 1) * IMAGES

WRONG: dict[str, tuple[dict[str, Callable[[Any], Any]], str]] = {
    "floats of 0 to 1": (
        pack_with(images=np.float32(IMAGES_OF / 255)),
        r"images .* float32 .* of 0 to 1: scale",
    ),
    "floats of 0 to 255": (
        pack_with(images=IMAGES_OF.astype(float)),
        r"pack\(\): images .* float64 .* 0 to 255",
    ),
    "uint16": (pack_with(images=IMAGES_OF.astype(np.uint16) * 257), r"it is uint16 \[36, 3, 8, 8\] of 0 to 65535"),
    "int64": (pack_with(images=IMAGES_OF.astype(np.int64)), r"it is int64 \[36, 3, 8, 8\]"),
    "bool": (pack_with(images=IMAGES_OF > 99), r"it is bool \[36, 3, 8, 8\] of 0 to 1"),
    "objects": (pack_with(images=IMAGES_OF.astype(object)), r"it is object \[36, 3, 8, 8\]"),
    "channels last": (pack_with(images=IMAGES_OF.transpose(0, 2, 3, 1)), r"channels before height .* \[36, 8, 8, 3\]"),
    "without channels": (pack_with(images=IMAGES_OF[:, 0]), r"\[n, C, H, W\] .* uint8 \[36, 8, 8\]"),
    "flat": (pack_with(images=IMAGES_OF.reshape(N, -1)), r"it is uint8 \[36, 192\]"),
    "a list": (pack_with(images=IMAGES_OF.tolist()), r"images must be a numpy array; it is list"),
    "no images": (pack_with(images=IMAGES_OF[:0]), r"at least one image .* \[0, 3, 8, 8\]"),
    "offsets begin late": (pack_with(offsets=RAISED + 1), r"from 0 to the number of images, 36; it is 1 … 37"),
    "offsets end early": (pack_with(offsets=RAISED // 2), r"from 0 to the number of images, 36; it is 0 … 18"),
    "an empty class": (pack_with(offsets=RAISED - 4 * (RAISED == 8)), r"rising, .* it is 4, 4 for class 'class 1'"),
    "float offsets": (pack_with(offsets=RAISED * 1.0), r"offsets must be whole numbers \[10\].* float64 \[10\]"),
    "too few offsets": (pack_with(offsets=RAISED[::3]), r"whole numbers \[10\], for 9 class_names; it is int64 \[4\]"),
    "offsets as a list": (pack_with(offsets=RAISED.tolist()), r"offsets must be a numpy array; it is list"),
    "a class twice": (pack_with(class_names=("\u00e9", "e\u0301", *"cdefghi")), r"for the classes 0 and 1"),
    "numbers as names": (pack_with(class_names=tuple(range(9))), r"class_names must be texts; it is 0"),
    "no classes": (pack_with(class_names=(), offsets=RAISED[:1]), r"class_names must be at least one class"),
    "one text as names": (pack_with(class_names="abcdefghi"), r"class_names must be a sequence of texts; it is str"),
    "names of fewer images": (pack_with(image_names=("a",) * 35), r"image_names must be one for each of 36 images"),
    "no pack": ({"pack": lambda pack: None}, r"pack\(\): the result must be a Pack; it is None"),
    "no splits": ({"split": lambda splits: None}, r"split\(\): the result must be a mapping .*; it is None"),
    "no val": (
        {"split": lambda splits: {k: splits[k] for k in ("train", "test")}},
        r"has no split val: .* train, test",
    ),
    "no Split": (
        {"split": lambda splits: {**splits, "val": VAL}},
        r"split 'val': the value must be a Split; it is Tensor",
    ),
    "floats in a split": (val_with(images=VAL / 255), r"split 'val': images .* Tensor float32 \[12, 3, 8, 8\] of"),
    "arrays in a split": (
        val_with(images=VAL.numpy()),
        r"'val': images must be a torch.Tensor or Rows; it is uint8",
    ),
    "fewer names": (
        val_with(class_names=["a"]),
        r"split 'val': offsets must be whole numbers \[2\], for 1 class_names",
    ),
    "fewer groups": (val_with(groups=[0]), r"split 'val': groups must be whole numbers \[3\].* int64 \[1\]"),
    "fewer families": (val_with(families=[0]), r"split 'val': families must be whole numbers \[3\].* int64 \[1\]"),
    "a node with a class too many": (
        val_with(nodes=[[0, 1], [1, 3]]),
        r"split 'val': nodes must be lists of distinct classes 0 … 2, one for each node; it is \[1, 3\]",
    ),
    "a node with a class twice": (val_with(nodes=[[1, 1]]), r"split 'val': nodes must be lists of distinct classes"),
    "groups of text": (val_with(groups=["a", "b", "c"]), r"split 'val': groups must be whole numbers"),
    "a mean of 0 to 255": (val_with(mean=(127.5,)), r"split 'val': mean must be between 0 and 1.*127.5: divide by 255"),
    "two means": (val_with(mean=(0.5, 0.5)), r"split 'val': mean must be 1 or 3 numbers, .* 3 channels; it is 2"),
    "a deviation of zero": (val_with(std=(0.0,)), r"split 'val': std must be between 0 and 1, .* above 0; it is 0.0"),
    "a deviation that is no number": (val_with(std=(float("nan"),)), r"split 'val': std must be .* it is nan"),
    "splits of another size": (
        val_with(images=VAL[..., :6, :6]),
        r"'val': images .* \[3, 8, 8\]; .*\[3, 6, 6\]",
    ),
    "sizes that lie": (
        {"sizes": lambda sizes: {**sizes, "val": api.SplitSize(99, 4)}},
        r"split 'val': the size must be as sizes\(\) says, .*classes=99.* it is .*classes=3",
    ),
    "sizes without val": (
        {"sizes": lambda sizes: {"train": sizes["train"]}},
        r"has no split val and no split test: its sizes",
    ),
    "sizes of pairs": (
        {"sizes": lambda sizes: dict.fromkeys(sizes, (3, 4))},
        r"'train' must be a SplitSize; .* tuple",
    ),
    "sizes of nothing": (
        {"sizes": lambda sizes: dict.fromkeys(sizes, api.SplitSize(0, 4))},
        r"sizes\(\): 'train' must be counts of at least 1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_are_refused_with_what_was_expected_and_what_came(case: str, tmp_path: Path) -> None:
    changes, message = WRONG[case]
    with pytest.raises(DataError, match=f"^the dataset 'mine'.*{message}") as refused:
        load(tmp_path, **changes)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_every_wrong_array_has_a_message_of_its_own(tmp_path: Path) -> None:
    messages = set()
    for number, (changes, _) in enumerate(WRONG.values()):
        with pytest.raises(DataError) as refused:
            load(tmp_path / str(number), **changes)
        messages.add(str(refused.value))
    assert len(messages) == len(WRONG) >= 34


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pack_with(offsets=RAISED.astype(np.int32)),
        val_with(groups=None, mean=(0.0,), std=(1.0,), image_names=None),
        val_with(groups=torch.tensor([5, 5, 7])),
        val_with(mean=torch.tensor([0.5, 0.4, 0.3]), class_names=["x", "y", "z"]),
        {"sizes": lambda sizes: None},
        {
            "split": lambda splits: {
                **splits,
                "more": replace(splits["val"], images=255 - VAL, class_names=["x", "y", "z"]),
            }
        },
    ],
)
def test_data_of_every_accepted_form_load(changes: dict[str, Callable[[Any], Any]], tmp_path: Path) -> None:
    assert {"train", "val", "test"} <= set(load(tmp_path, **changes))


@pytest.mark.parametrize("method", ["pack", "split", "sizes"])
def test_an_error_of_a_dataset_names_dataset_and_method(method: str, tmp_path: Path) -> None:
    def fail(value: object) -> None:
        raise KeyError("a bug")

    with pytest.raises(DataError, match=rf"the dataset 'mine' failed in {method}\(\): KeyError: 'a bug'"):
        load(tmp_path, **{method: fail})


@pytest.mark.parametrize("content", [b"not an image", png()[:-30]])
def test_an_image_that_cannot_be_decoded_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(png())
    (tmp_path / "bad.png").write_bytes(content)

    def decode(pack: Pack) -> Pack:
        for path in (tmp_path / "good.png", tmp_path / "bad.png"):
            np.asarray(Image.open(io.BytesIO(path.read_bytes())))
        return pack

    with pytest.raises(DataError, match=r"failed in pack\(\): .*bad\.png"):
        load(tmp_path / "cache", pack=decode)
