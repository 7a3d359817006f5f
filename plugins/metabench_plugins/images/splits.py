"""Divide classes or images into train, val and test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from metabench import api
from metabench.api import DataError

SPLITS = ("train", "val", "test")
#: Between the split and the path in the name of an image: no path has an empty part.
_MARK = "//"
_RATIOS = (0.6, 0.2, 0.2)
#: Number of names that a message shows.
_NAMED = 5


class SplitConfig(api.Config):
    """How the classes are divided into splits.

    Attributes:
        by: "given" takes the splits of the data (folders, files or a column named train, val and test); "ratio" divides
            the classes by `ratios` and `seed`; "classes" takes the lists `train`, `val` and `test`; "image" divides the
            images of each class by `ratios` and `seed`, so that all splits have the same classes.
        train: names of the training classes, by "classes".
        val: names of the validation classes.
        test: names of the test classes.
        shared_classes: whether given splits may have classes in common.
    """

    by: Literal["given", "ratio", "classes", "image"]
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    shared_classes: bool = False

    @model_validator(mode="after")
    def _fit_each_other(self) -> SplitConfig:
        lists = {name: getattr(self, name) for name in SPLITS}
        if self.by == "classes" and not all(lists.values()):
            empty = next(name for name in SPLITS if not lists[name])
            raise ValueError(f"by: classes needs the lists train, val and test, and {empty} is empty")
        if self.by != "classes" and any(lists.values()):
            raise ValueError("the lists train, val and test are for by: classes; set it, or remove them")
        if self.shared_classes and self.by != "given":
            raise ValueError(f"shared_classes is for given splits, not for by: {self.by}; remove it")
        return self


class SplitsConfig(api.Config):
    """Parameters of datasets that are divided into splits.

    Attributes:
        split: how the classes are divided; None takes the splits of the data, and "ratio" where they have none.
        ratios: shares of the classes, or of the images of each class, in train, val and test.
        seed: seed of the division by ratios.
        exclude: classes that are left out of all splits.
    """

    split: SplitConfig | None = None
    ratios: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = _RATIOS
    seed: NonNegativeInt = Field(default=0)
    exclude: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _ratios_are_used(self) -> SplitsConfig:
        if self.split and self.split.by in ("given", "classes") and (self.ratios != _RATIOS or self.seed):
            unused = "ratios" if self.ratios != _RATIOS else "seed"
            raise ValueError(f"{unused} divides nothing with split by: {self.split.by}; remove one of the two")
        return self


def with_split(split: str, name: str) -> str:
    """Return the name of an image that also says its split; the plain name where the data have no splits."""
    return f"{split}{_MARK}{name}" if split else name


def path_of(image: str) -> str:
    """Return the name of an image without its split."""
    return image.rpartition(_MARK)[2]


def divided(images: Mapping[str, Sequence[str]], config: SplitsConfig, place: str) -> dict[str, dict[str, list[int]]]:
    """Return the indices of the images of each class in train, val and test.

    Args:
        images: the names of the images of each class, made by `with_split`.
        config: how they are divided.
        place: the data, for messages.

    Raises:
        DataError: a split would be empty, or a parameter names an unknown class.
    """
    _check_known(config.exclude, images, "exclude", place)
    left = {name: names for name, names in images.items() if name not in config.exclude}
    given = {name: [_split_of(image) for image in names] for name, names in left.items()}
    split = config.split or SplitConfig(by="given" if any(map(any, given.values())) else "ratio")
    if split.by == "given":
        return _as_given(given, split.shared_classes, place)
    if split.by == "image":
        return _by_image(left, config, place)
    if split.by == "classes":
        return _by_lists(images, split, config.exclude, place)
    if len(left) < len(SPLITS):
        raise DataError(
            f"{place} has {len(left)} class{'' if len(left) == 1 else 'es'}: train, val and test need one each. Add "
            "classes, or give all splits the same classes with other images, `split: {by: image}`"
        )
    order = sorted(left, key=lambda name: _rank(config.seed, name))
    shares = _shares(len(order), config.ratios)
    return {name: {one: list(range(len(left[one]))) for one in sorted(order[part])} for name, part in shares}


def _as_given(given: Mapping[str, Sequence[str]], shared_classes: bool, place: str) -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = {split: {} for split in SPLITS}
    for name, splits in given.items():
        for split in SPLITS:
            members = [index for index, other in enumerate(splits) if other == split]
            if members:
                found[split][name] = members
    empty = [split for split in SPLITS if not found[split]]
    if empty:
        full = [split for split in SPLITS if found[split]]
        has = f"has only {' and '.join(full)}" if full else "has no splits"
        raise DataError(
            f"{place} {has}, and {' and '.join(empty)} would be empty: add them, or divide the classes with "
            "`split: {by: ratio}` or `split: {by: classes, train: […], val: […], test: […]}`"
        )
    shared = [name for name in given if sum(name in found[split] for split in SPLITS) > 1]
    if shared and not shared_classes:
        raise DataError(
            f"{place} has {len(shared)} of {len(given)} classes in more than one split, e.g. '{shared[0]}': divide the "
            "classes with `split: {by: ratio}`; or, to test on other images of the training classes, say so with "
            "`split: {by: given, shared_classes: true}`"
        )
    return found


def _by_image(images: Mapping[str, Sequence[str]], config: SplitsConfig, place: str) -> dict[str, dict[str, list[int]]]:
    if not images:
        raise DataError(f"{place} has no classes left: correct `exclude`")
    few = [name for name, names in images.items() if len(names) < len(SPLITS)]
    if few:
        raise DataError(
            f"{place}: {_named(few)} fewer than 3 images, and `split: {{by: image}}` puts one into each split: add "
            "images, or name the classes in `exclude`"
        )
    found: dict[str, dict[str, list[int]]] = {split: {} for split in SPLITS}
    for name, names in images.items():
        order = sorted(range(len(names)), key=lambda index: _rank(config.seed, f"{name}|{names[index]}"))
        for split, part in _shares(len(order), config.ratios):
            found[split][name] = sorted(order[part])
    return found


def _by_lists(
    images: Mapping[str, Sequence[str]], config: SplitConfig, exclude: Sequence[str], place: str
) -> dict[str, dict[str, list[int]]]:
    lists = {split: getattr(config, split) for split in SPLITS}
    owner = dict[str, str]()
    for split, names in lists.items():
        _check_known(names, images, f"split.{split}", place)
        for name in names:
            if name in owner or name in exclude:
                raise DataError(
                    f"split.{split} names '{name}', which is in {owner.get(name, 'exclude')}, too: keep one"
                )
            owner[name] = split
    return {split: {name: list(range(len(images[name]))) for name in sorted(names)} for split, names in lists.items()}


def _shares(count: int, ratios: Sequence[float]) -> list[tuple[str, slice]]:
    """Return the part of each split in an order: at least one of three or more."""
    _, val, test = (count * ratio / sum(ratios) for ratio in ratios)
    last = min(max(1, round(test)), count - 2)
    first = min(last + max(1, round(val)), count - 1)
    return [("train", slice(first, None)), ("val", slice(last, first)), ("test", slice(0, last))]


def _rank(seed: int, name: str) -> bytes:
    """Return a place in an order that depends on nothing but seed and name."""
    return hashlib.sha256(f"{seed}|{name}".encode()).digest()


def _split_of(image: str) -> str:
    split, mark, _ = image.partition(_MARK)
    return split if mark else ""


def _check_known(names: Sequence[str], known: Mapping[str, object], parameter: str, place: str) -> None:
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        near = get_close_matches(unknown, known, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise DataError(f"{parameter} names '{unknown}', which is no class of {place}{hint}: correct it")


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    return f"the class {shown} has" if len(names) == 1 else f"{len(names)} classes ({shown}) have"
