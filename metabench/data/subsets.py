"""Nested subsets of the classes and images of a training split; imports no torch before it has a split."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from metabench.data.order import Order
from metabench.data.permutations import Permutations
from metabench.data.sampler import IntArray
from metabench.errors import CellFailed

if TYPE_CHECKING:  # imports torch
    from metabench.api import Split, SplitSize


@dataclass(frozen=True)
class Subset:
    """Limits of what a training sees; at least one is given.

    Attributes:
        classes: number of classes; None means all.
        images_per_class: largest number of images of a class; None means all.
    """

    classes: int | None = None
    images_per_class: int | None = None

    @property
    def identity(self) -> dict[str, int]:
        """Return the limits as plain data."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def size(self, whole: SplitSize) -> SplitSize:
        """Return the size of the subset of a split; the smallest of its classes may be larger."""
        images = whole.most_images if self.images_per_class is None else self.images_per_class
        return replace(
            whole,
            classes=whole.classes if self.classes is None else min(self.classes, whole.classes),
            images_per_class=min(whole.images_per_class, images),
            largest=min(whole.most_images, images),
        )

    def excess(self, whole: SplitSize) -> tuple[str, str] | None:
        """Return the name of a limit that a split does not reach, and a message; None where there is no such limit."""
        if self.classes is not None and self.classes > whole.classes:
            return "classes", f"{self.classes} training classes asked for, and there are {whole.classes}"
        if self.images_per_class is not None and self.images_per_class > whole.most_images:
            asked = f"{self.images_per_class} training images of a class asked for"
            return "images_per_class", f"{asked}, and no class has more than {whole.most_images}"
        return None


def limited(split: Split, subset: Subset, seed: int) -> Split:
    """Return a subset of a split.

    Subsets are nested: each is the beginning of one random order (Philox) of the classes, and of the images of each
    class. The orders depend on the seed and on names, where images have names; classes come first, so that all numbers
    of images have the same classes. The split's own order stays.

    Args:
        split: the training split.
        subset: the limits.
        seed: the training seed, so that all algorithms of a seed see the same, and seeds differ in what they see.

    Raises:
        CellFailed: the split has fewer classes, or images of any class, than the limit.
    """
    import torch

    excess = subset.excess(split.size)
    if excess is not None:
        name, message = excess
        raise CellFailed(f"{message}: lower train.{name}")
    order = Order.of(split)
    names = hashlib.sha256(json.dumps(order.names).encode()).hexdigest()
    places = _first(subset.classes, len(order.names), f"subset of classes|{names}", seed)
    members = {int(order.classes[place]): _images(order, int(place), subset, seed) for place in places}
    classes = sorted(members)
    index = np.concatenate([members[c] for c in classes])
    image_names = split.image_names
    return replace(
        split,
        images=split.rows.subset(torch.from_numpy(index)),
        offsets=torch.tensor([0, *(len(members[c]) for c in classes)]).cumsum(0),
        class_names=[split.class_names[c] for c in classes],
        groups=None if split.groups is None else [split.groups[c] for c in classes],
        image_names=None if image_names is None else [image_names[i] for i in index],
        families=None if split.families is None else [split.families[c] for c in classes],
        nodes=None
        if split.nodes is None
        else [[classes.index(c) for c in node if c in members] for node in split.nodes],
    )


def _images(order: Order, place: int, subset: Subset, seed: int) -> IntArray:
    """Return the images of a sorted class, in the order of the split."""
    images = order.images[order.offsets[place] : order.offsets[place + 1]]
    stream = f"subset of images|{order.names[place]}"
    return np.sort(images[_first(subset.images_per_class, len(images), stream, seed)])


def _first(limit: int | None, count: int, stream: str, seed: int) -> IntArray:
    """Return the first numbers of a random order of 0 … count - 1; all of them without a limit."""
    return Permutations(count, stream, seed).epoch(0)[:limit]
