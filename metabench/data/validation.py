"""Check the values that a dataset returns; imports torch only for splits."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metabench.errors import InvalidData
from metabench.packs import ClassImages, Pack

if TYPE_CHECKING:  # imports torch
    from metabench.api import Split, SplitSize

#: The splits of every dataset.
SPLITS = ("train", "val", "test")


def check_pack(name: str, pack: object) -> Pack:
    """Return the pack if images, offsets and names fit each other.

    Args:
        name: the dataset's name, for the message.
        pack: the value that its `pack` returned.

    Raises:
        InvalidData: says what was expected and what came.
    """
    owner = f"the dataset '{name}', pack()"
    if not isinstance(pack, Pack):
        raise _wrong(owner, "the result", "a Pack", _described(pack))
    if not isinstance(pack.images, np.ndarray):
        raise _wrong(owner, "images", "a numpy array", _described(pack.images))
    _check_images(owner, pack.images)
    if not isinstance(pack.offsets, np.ndarray):
        raise _wrong(owner, "offsets", "a numpy array", _described(pack.offsets))
    _check_classes(owner, pack.class_names, pack.offsets, pack.images)
    _check_image_names(owner, pack.image_names, len(pack.images))
    return pack


def checked_classes(name: str, classes: Iterable[object]) -> Iterator[ClassImages]:
    """Yield the classes of a pack that is made class by class, each if it fits those before it.

    Args:
        name: the dataset's name, for the message.
        classes: the values that its `pack` yields.

    Raises:
        InvalidData: says what was expected and what came, and in which class.
    """
    owner = f"the dataset '{name}', pack()"
    seen: dict[str, int] = {}
    form: tuple[Any, ...] = ()
    for index, part in enumerate(classes):
        if not isinstance(part, ClassImages):
            raise _wrong(owner, "the values", "ClassImages", _described(part))
        if not isinstance(part.name, str):
            raise _wrong(owner, "the name of a class", "text", f"{part.name!r}")
        _check_new(owner, part.name, index, seen)
        of_class = f"{owner}, class '{part.name}'"
        if not isinstance(part.images, np.ndarray):
            raise _wrong(of_class, "images", "a numpy array", _described(part.images))
        _check_images(of_class, part.images)
        _check_image_names(of_class, part.image_names, len(part.images))
        if isinstance(part.above, str) or not all(isinstance(node, str) for node in part.above):
            raise _wrong(of_class, "above", "a sequence of texts", repr(part.above))
        came = (part.images.shape[1:], part.images.dtype, part.image_names is not None)
        form = form or came
        if came[:2] != form[:2]:
            raise _wrong(of_class, "images", f"of the shape of the first class, {list(form[0])}", f"{list(came[0])}")
        if came[2] != form[2]:
            raise _wrong(of_class, "image_names", "given for all classes, or for none", "for some only")
        yield part
    if not seen:
        raise _wrong(owner, "class_names", "at least one class", "none")


def check_splits(name: str, splits: object, announced: Mapping[str, SplitSize] | None) -> Mapping[str, Split]:
    """Return the splits if they are complete, and all their fields fit each other.

    Args:
        name: the dataset's name, for the message.
        splits: the value that its `split` returned.
        announced: the value that its `sizes` returned, checked by `check_sizes`.

    Raises:
        InvalidData: says what was expected and what came, and in which split.
    """
    from metabench.api import Split

    if not isinstance(splits, Mapping):
        raise _wrong(f"the dataset '{name}', split()", "the result", "a mapping of names to Split", _described(splits))
    _check_complete(name, "split()", splits)
    for split, content in splits.items():
        owner = f"the dataset '{name}', split '{split}'"
        if not isinstance(content, Split):
            raise _wrong(owner, "the value", "a Split", _described(content))
        _check_split(owner, content)
        if announced and split in announced and content.size != announced[split]:
            raise _wrong(owner, "the size", f"as sizes() says, {announced[split]}", str(content.size))
    shapes = {split: splits[split].rows.shape for split in splits}
    for split, shape in shapes.items():
        if shape != shapes["train"]:
            expected = f"of the shape of the train split, {list(shapes['train'])}"
            raise _wrong(f"the dataset '{name}', split '{split}'", "images", expected, str(list(shape)))
    return splits


def check_sizes(name: str, sizes: object) -> Mapping[str, SplitSize] | None:
    """Return the announced sizes if they are complete; None means unknown.

    Raises:
        InvalidData: says what was expected and what came.
    """
    from metabench.api import SplitSize

    if sizes is None:
        return None
    if not isinstance(sizes, Mapping):
        raise _wrong(f"the dataset '{name}', sizes()", "the result", "a mapping or None", _described(sizes))
    _check_complete(name, "sizes()", sizes)
    for split, size in sizes.items():
        if not isinstance(size, SplitSize):
            raise _wrong(f"the dataset '{name}', sizes()", f"'{split}'", "a SplitSize", _described(size))
        if not all(_is_count(count) for count in (size.classes, size.images_per_class, size.most_images)):
            raise _wrong(f"the dataset '{name}', sizes()", f"'{split}'", "counts of at least 1", str(size))
    return sizes


def normalised(class_name: str) -> str:
    """Return the name in Unicode's NFC form, in which equal names are equal text."""
    return unicodedata.normalize("NFC", class_name)


def _check_split(owner: str, split: Split) -> None:
    import torch

    from metabench.api import Rows

    if not isinstance(split.images, (torch.Tensor, Rows)):
        raise _wrong(owner, "images", "a torch.Tensor or Rows", _described(split.images))
    if not isinstance(split.offsets, torch.Tensor):
        raise _wrong(owner, "offsets", "a torch.Tensor", _described(split.offsets))
    images = split.images
    _check_images(owner, images.take(torch.arange(min(1, len(images)))) if isinstance(images, Rows) else images)
    _check_classes(owner, split.class_names, split.offsets, split.images)
    _check_image_names(owner, split.image_names, len(split.images))
    channels = split.rows.shape[0]
    for field, values in (("mean", split.mean), ("std", split.std)):
        _check_scale(owner, field, values, channels)
    for field, of_classes in (("groups", split.groups), ("families", split.families)):
        if of_classes is None:
            continue
        numbers = np.asarray(of_classes)
        if numbers.shape != (len(split.class_names),) or numbers.dtype.kind not in "iu":
            expected = f"whole numbers [{len(split.class_names)}], one for each class"
            raise _wrong(owner, field, expected, _described(numbers))
    _check_nodes(owner, split.nodes, len(split.class_names))


def _check_nodes(owner: str, nodes: Any, classes: int) -> None:
    for node in nodes or ():
        numbers = np.asarray(node)
        whole = numbers.ndim == 1 and (numbers.dtype.kind in "iu" or not numbers.size)
        if not whole or len(set(numbers.tolist())) < len(numbers) or not ((numbers >= 0) & (numbers < classes)).all():
            expected = f"lists of distinct classes 0 … {classes - 1}, one for each node"
            raise _wrong(owner, "nodes", expected, repr(node))


def _check_complete(name: str, method: str, splits: Mapping[str, object]) -> None:
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        raise InvalidData(
            f"the dataset '{name}' has no split {' and no split '.join(missing)}: its {method} must return "
            f"train, val and test, and returned {', '.join(map(str, splits)) or 'nothing'}"
        )


def _check_images(owner: str, images: Any) -> None:
    """Check the type, shape and number of images, of numpy or torch."""
    expected = "uint8 [n, C, H, W] of 0 … 255"
    if images.ndim == 2 and str(images.dtype).removeprefix("torch.") == "float32" and len(images):
        return  # vectors
    if images.ndim != 4:
        raise _wrong(owner, "images", expected, _described(images))
    _, channels, _, width = images.shape
    if width <= 4 < channels:
        raise _wrong(owner, "images", f"{expected}, channels before height and width", _described(images))
    if not str(images.dtype).endswith("uint8"):
        hint = "scale them to 0 … 255, round them and convert them to uint8"
        raise _wrong(owner, "images", expected, f"{_described(images)}{_range(images)}: {hint}")
    if 0 in tuple(images.shape):
        raise _wrong(owner, "images", "at least one image of at least one pixel", _described(images))


def _check_classes(owner: str, names: Any, offsets: Any, images: Any) -> None:
    """Check class names, and that offsets divide the images into classes."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise _wrong(owner, "class_names", "a sequence of texts", _described(names))
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise _wrong(owner, "class_names", "texts", f"{wrong!r}")
    if not names:
        raise _wrong(owner, "class_names", "at least one class", "none")
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        _check_new(owner, name, index, seen)
    whole = str(offsets.dtype).removeprefix("torch.").removeprefix("u").startswith("int")
    if not whole or offsets.ndim != 1 or len(offsets) != len(names) + 1:
        expected = f"whole numbers [{len(names) + 1}], for {len(names)} class_names"
        raise _wrong(owner, "offsets", expected, _described(offsets))
    bounds = [int(bound) for bound in offsets]
    if bounds[0] != 0 or bounds[-1] != len(images):
        ends = f"{bounds[0]} … {bounds[-1]}"
        raise _wrong(owner, "offsets", f"from 0 to the number of images, {len(images)}", ends)
    for name, first, last in zip(names, bounds, bounds[1:], strict=False):
        if last <= first:
            raise _wrong(owner, "offsets", "rising, as every class has an image", f"{first}, {last} for class '{name}'")


def _check_new(owner: str, name: str, index: int, seen: dict[str, int]) -> None:
    """Note the name of a class; refuse one that an earlier class has."""
    if normalised(name) in seen:
        places = f"{name!r} for the classes {seen[normalised(name)]} and {index}"
        raise _wrong(owner, "class_names", "another name for each class", places)
    seen[normalised(name)] = index


def _check_image_names(owner: str, names: Any, count: int) -> None:
    if names is None:
        return
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise _wrong(owner, "image_names", "a sequence of texts, or None", _described(names))
    if len(names) != count:
        raise _wrong(owner, "image_names", f"one for each of {count} images", f"{len(names)}")


def _check_scale(owner: str, field: str, values: Any, channels: int) -> None:
    """Check the mean or standard deviation of each channel."""
    if not hasattr(values, "__len__") or isinstance(values, (str, bytes, Mapping)):
        raise _wrong(owner, field, "one number for each channel", _described(values))
    if len(values) not in (1, channels):
        raise _wrong(owner, field, f"1 or {channels} numbers, as there are {channels} channels", f"{len(values)}")
    for value in values:
        number = float(value) if _is_number(value) else math.nan
        if not 0 <= number <= 1 or (field == "std" and number == 0):
            scale = "of images scaled to 0 … 1" + (", above 0" if field == "std" else "")
            hint = ": divide by 255" if 1 < number <= 255 else ""
            raise _wrong(owner, field, f"between 0 and 1, {scale}", f"{value}{hint}")


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return not isinstance(value, (str, bytes))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _range(images: Any) -> str:
    """Return the range of an array's numbers as text; empty where it has none."""
    try:
        return f" of {float(images.min()):g} to {float(images.max()):g}"
    except (TypeError, ValueError, RuntimeError):
        return ""


def _described(value: object) -> str:
    """Return type and shape of an array, or the type of another object."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        kind = "" if isinstance(value, np.ndarray) else f"{type(value).__name__} "
        return f"{kind}{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return "None" if value is None else type(value).__name__


def _wrong(owner: str, field: str, expected: str, came: str) -> InvalidData:
    return InvalidData(f"{owner}: {field} must be {expected}; it is {came}")
