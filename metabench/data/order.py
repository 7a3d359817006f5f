"""The order in which episodes count the classes and images of a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from metabench.data.sampler import EpisodeShape, IntArray, sampler_key
from metabench.data.validation import normalised

if TYPE_CHECKING:  # imports torch
    from metabench.api import SourceSplit, Split

#: Images hashed at once.
_AT_ONCE = 1024


@dataclass(frozen=True)
class Order:
    """Classes that can be drawn, sorted by name (Unicode's NFC form), and images by name where they have names.

    Who has the same data then has the same episodes, however the classes and files came.

    Attributes:
        names: [classes] sorted names of the classes that can be drawn.
        classes: [classes] index of each of them in the split.
        images: [n] index of each sorted image in the split.
        offsets: [classes + 1] index in `images` of the first image of each sorted class, and n.
        families: [classes] number of the family of each sorted class, in the order of their first classes; None without
            families.
        groups: [classes] number of the group of each sorted class, likewise.
        nodes: the sorted classes below each node of a hierarchy, as `metabench.api.Split.nodes`, in order.
    """

    names: tuple[str, ...]
    classes: IntArray
    images: IntArray
    offsets: IntArray
    families: tuple[int, ...] | None = None
    groups: tuple[int, ...] | None = None
    nodes: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(cls, split: Split, least: int = 0) -> Order:
        """Return the order of a split.

        Args:
            split: the split.
            least: number of images that a class must have to be drawn.
        """
        names = [normalised(name) for name in split.class_names]
        bounds = split.offsets.tolist()
        large_enough = [c for c in range(len(names)) if bounds[c + 1] - bounds[c] >= least]
        classes = sorted(large_enough, key=names.__getitem__)
        members = [np.arange(bounds[c], bounds[c + 1], dtype=np.int64) for c in classes]
        if split.image_names is not None:
            image_names = [normalised(name) for name in split.image_names]
            members = [np.array(sorted(images.tolist(), key=image_names.__getitem__), np.int64) for images in members]
        return cls(
            names=tuple(names[c] for c in classes),
            classes=np.array(classes, dtype=np.int64),
            images=np.concatenate([np.empty(0, np.int64), *members]),
            offsets=np.cumsum([0, *(len(images) for images in members)], dtype=np.int64),
            families=None if split.families is None else _numbered([int(split.families[c]) for c in classes]),
            groups=None if split.groups is None else _numbered([int(split.groups[c]) for c in classes]),
            nodes=None if split.nodes is None else _renumbered(split.nodes, classes),
        )

    def stream(self, split: str, shape: EpisodeShape | None = None) -> str:
        """Return the name of the split's episodes, for a sampler.

        Args:
            split: name of the split.
            shape: shape of the episodes; families, groups and nodes count only where its rule looks at them.
        """
        counts = np.diff(self.offsets).tolist()
        text = json.dumps(list(zip(self.names, counts, strict=True)), separators=(",", ":"))
        sampling = None if shape is None else shape.sampling
        if sampling == "meta-dataset" and self.nodes is not None:
            text += json.dumps({"nodes": self.nodes})
        elif sampling in ("meta-dataset", "one-family") and self.families is not None:
            text += json.dumps(self.families)
        elif sampling == "one-of-a-group" and self.groups is not None:
            text += json.dumps({"groups": self.groups})
        return f"{split}|{hashlib.sha256(text.encode()).hexdigest()}"


def _numbered(sets: Sequence[int]) -> tuple[int, ...]:
    """Return the families or groups numbered from 0 in the order in which they come."""
    numbers = {one: number for number, one in enumerate(dict.fromkeys(sets))}
    return tuple(numbers[one] for one in sets)


def _renumbered(nodes: Sequence[Sequence[int]], classes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return the nodes with the sorted numbers of their classes, without the classes that are not drawn."""
    numbers = {int(class_): number for number, class_ in enumerate(classes)}
    return tuple(sorted(tuple(sorted(numbers[int(c)] for c in node if int(c) in numbers)) for node in nodes))


def episodes_key(split: Split | SourceSplit, name: str, shape: EpisodeShape, seed: int, content: str) -> str:
    """Return a key of the episodes of a split: 32 hexadecimal digits.

    Splits of equal keys have the same episodes, of the same images.

    Args:
        split: the split.
        name: its name.
        shape: shape of the episodes.
        seed: seed of the episodes.
        content: its `content_of`, or `metabench.api.SourceSplit.content`.
    """
    from metabench.api import Split

    stream = Order.of(split, shape.per_class).stream(name, shape) if isinstance(split, Split) else name
    key = sampler_key(stream, shape, seed)
    return hashlib.sha256(f"{key}|{content}".encode()).hexdigest()[:32]


def content_of(split: Split, seen: Callable[[int], None] = lambda images: None) -> str:
    """Return a hash of the images of a split, in their order.

    Args:
        split: the split.
        seen: told of the number of images of each part that was read.
    """
    import torch

    digest = hashlib.sha256(json.dumps(split.rows.shape).encode())
    # A copy of all images may be large.
    for part in torch.split(torch.from_numpy(Order.of(split).images), _AT_ONCE):
        digest.update(np.ascontiguousarray(split.rows.take(part).cpu().numpy()).data.cast("B"))
        seen(len(part))
    return digest.hexdigest()
