"""Describe a place with images, and the suite that fits them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from metabench.api import DataError, Inspection, Progress
from metabench_plugins.images.classes import Photo
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.decoding import DamagedImage, decoded, on_all_cores, opened
from metabench_plugins.images.forms import Found
from metabench_plugins.images.new_suite import fitting_shape, suite_text
from metabench_plugins.images.opening import found_images
from metabench_plugins.images.splits import SplitsConfig, divided, path_of
from metabench_plugins.images.trees import Tree

_FORMS = {
    "classes": "a folder for each class",
    "splits": "folders of splits, with a folder for each class",
    "csv": "CSV",
    "json": "JSON",
}
#: Modes without colour.
_GREY = ("1", "L", "LA", "La", "I", "F")
#: Parameters of divisions in the order of the search; the first is that of the data, or by ratio.
_DIVISIONS: tuple[dict[str, Any], ...] = (
    {},
    {"split": {"by": "ratio"}},
    {"split": {"by": "given", "shared_classes": True}},
    {"split": {"by": "image"}},
    {"split": {"by": "image"}, "ratios": [1, 1, 1]},
)
#: Name of an image: its class, and its name in the class.
_Name = tuple[str, str]


@dataclass(frozen=True)
class _Look:
    """An image that can be decoded: (width, height), mode, and a hash of its pixels at the size of a pack."""

    size: tuple[int, int]
    mode: str
    pixels: bytes


@dataclass
class _Looks:
    """The images of a place.

    Attributes:
        images: for each class, the names of the images that can be decoded.
        of: the look of each of them.
        damaged: place and reason of each other image.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    of: dict[_Name, _Look] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


def inspected(path: Path, root: str, progress: Progress) -> Inspection:
    """Return the description of a place; every image is decoded.

    Args:
        path: the place.
        root: its name in a suite.
        progress: told of each image.

    Raises:
        DataError: the place cannot be read, or has no classes.
    """
    with found_images(path) as (found, _):
        depth = 2 if _in_groups(found) else 1
    with found_images(path, depth=depth) as (found, tree):
        looks = _looked_at(found, tree, progress)
    counts = {name: len(images) for name, images in looks.images.items()}
    duplicates = _duplicates(looks)
    params: dict[str, Any] = {"root": root}
    params |= {"depth": 2} if depth == 2 else {}
    modes = Counter(look.mode for look in looks.of.values())
    params |= {"channels": 1} if modes and all(mode.split(";")[0] in _GREY for mode in modes) else {}
    params |= {"damaged": "skip"} if looks.damaged else {}
    remarks = [remark for one in found.classes.values() for remark in one.remarks]
    remarks += ["every class folder has folders: each of these is a class (depth: 2)"] if depth == 2 else []
    problems, splits, text = [f"all images of '{name}' are damaged" for name in counts if not counts[name]], {}, ""
    try:
        division, members = _division(looks, path.name, remarks)
        params |= division
        splits = {split: {name: len(images) for name, images in classes.items()} for split, classes in members.items()}
        problems += _crossing(duplicates, looks, members)
        text = suite_text(path.stem, params, fitting_shape(splits))
    except DataError as error:
        problems.append(str(error))
    return Inspection(
        form=_form(found),
        params=params,
        splits=splits,
        classes=counts,
        sizes=Counter(look.size for look in looks.of.values()),
        modes=modes,
        duplicates=[[f"{name}/{path_of(image)}" for name, image in group] for group in duplicates],
        damaged=looks.damaged,
        problems=problems,
        remarks=remarks,
        new_suite="" if problems else text,
    )


def _looked_at(found: Found, tree: Tree, progress: Progress) -> _Looks:
    """Decode all images once."""
    looks = _Looks({name: [] for name in found.classes})
    names = [(name, image) for name, one in found.classes.items() for image in one.images]
    photos = [
        Photo(image, tree.shown(path), tree.source(path))
        for one in found.classes.values()
        for image, path in one.images.items()
    ]
    results = on_all_cores(partial(_look, config=ImageConfig()), photos)
    for done, ((name, image), photo, result) in enumerate(zip(names, photos, results, strict=True), 1):
        if isinstance(result, DamagedImage):
            looks.damaged.append(f"{photo.place} ({result})")
        else:
            looks.images[name].append(image)
            looks.of[name, image] = result
        progress(done, len(photos), f"looking at {tree.place.name}")
    return looks


def _look(photo: Photo, config: ImageConfig) -> _Look:
    with opened(photo.source) as image:
        size, mode = image.size, image.mode
    pixels = decoded(photo.source, config)
    return _Look(size, mode, hashlib.blake2b(pixels.tobytes(), digest_size=16).digest())


def _in_groups(found: Found) -> bool:
    """Return whether class folders hold nothing but several folders of images, which are probably the classes."""
    if found.form not in ("classes", "splits"):
        return False
    paths = [(name, path_of(image)) for name, one in found.classes.items() for image in one.images]
    inner = {(name, path.partition("/")[0]) for name, path in paths}
    return all("/" in path for _, path in paths) and len(inner) >= 2 * len(found.classes)


def _division(looks: _Looks, place: str, remarks: list[str]) -> tuple[dict[str, Any], dict[str, dict[str, list[int]]]]:
    """Return the first division that gives each split two classes, as parameters and as indices of images.

    Raises:
        DataError: there is none.
    """
    problems = list[str]()
    for division in _DIVISIONS:
        try:
            members = divided(looks.images, SplitsConfig.model_validate_json(json.dumps(division)), place)
            fitting_shape({s: {name: len(found) for name, found in of.items()} for s, of in members.items()})
        except DataError as error:
            problems.append(str(error))
            continue
        if division:
            by = division["split"]["by"]
            remarks.append(f"`split: {{by: {by}}}` is proposed, because {problems[0]}")
        return division, members
    raise DataError(
        problems[0] if len(looks.images) > 1 else f"{place} has one class: a method needs two to tell apart"
    )


def _duplicates(looks: _Looks) -> list[list[_Name]]:
    """Return groups of images with equal pixels."""
    groups: dict[bytes, list[_Name]] = {}
    for name, look in looks.of.items():
        groups.setdefault(look.pixels, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _crossing(
    duplicates: Sequence[Sequence[_Name]], looks: _Looks, members: Mapping[str, Mapping[str, Sequence[int]]]
) -> list[str]:
    """Return a problem if copies of an image are in several splits."""
    split_of = {
        (name, looks.images[name][index]): split
        for split, classes in members.items()
        for name, indices in classes.items()
        for index in indices
    }
    crossing = [group for group in duplicates if len({split_of[name] for name in group}) > 1]
    if not crossing:
        return []
    (one, first), (other, second) = crossing[0][0], crossing[0][-1]
    return [
        f"{len(crossing)} of the images that occur twice cross a split, e.g. {one}/{path_of(first)} and "
        f"{other}/{path_of(second)}: remove the copies"
    ]


def _form(found: Found) -> str:
    lists = f" ({', '.join(found.lists)})" if found.lists else ""
    return f"{_FORMS[found.form]}{lists}"
