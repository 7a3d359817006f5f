"""Packed datasets on disk: one file each, written class by class, mapped when it is read."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metabench.errors import DataError
from metabench.files import atomic_file
from metabench.row_files import DamagedFile, RowFile, map_rows, written_rows

__all__ = ["ClassImages", "Pack", "atomic_file", "read_pack", "verify_pack", "write_pack"]

#: Bytes hashed between two reports of progress.
_AT_ONCE = 2**26
#: Called with the number of hashed bytes and of all bytes.
Hashing = Callable[[int, int], None]


@dataclass(frozen=True)
class ClassImages:
    """The images of one class, as a dataset packs them one class after the other.

    Attributes:
        name: the name of the class.
        images: [n, C, H, W] uint8 images, or [n, D] float32 vectors.
        image_names: [n] names, see `Pack`.
        remarks: oddities for records, e.g. files that are no images.
        above: names of the inner nodes of a hierarchy that the class is below, e.g. of WordNet.
    """

    name: str
    images: npt.NDArray[Any]
    image_names: Sequence[str] | None = None
    remarks: Sequence[str] = ()
    above: Sequence[str] = ()


@dataclass(frozen=True)
class Pack:
    """Images of a dataset before it is split.

    Attributes:
        images: [n, C, H, W] uint8 images, or [n, D] float32 vectors, sorted by class. Those of a pack in the cache are
            mapped: workers share their memory, and a change is private.
        offsets: [classes + 1] int64; class c is ``images[offsets[c]:offsets[c + 1]]``.
        class_names: another name for each class.
        image_names: a name for each image, so that episodes do not depend on the order of a directory; None where the
            order of the images is always the same.
        remarks: oddities for records.
        stored_fingerprint: the fingerprint in the file of a pack that was read; empty for a new pack.
        nodes: the classes below each inner node of a hierarchy; empty without a hierarchy.
    """

    images: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    image_names: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()
    stored_fingerprint: str = ""
    nodes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Return the sha256 of images, offsets and names, in hexadecimal; identifies the data in a record."""
        return self.stored_fingerprint or fingerprint_of(self)

    def classes(self) -> Iterator[ClassImages]:
        """Yield each class."""
        bounds = self.offsets.tolist()
        above = defaultdict[int, list[str]](list)
        for node, classes in self.nodes.items():
            for class_ in classes:
                above[class_].append(node)
        for number, (name, first, last) in enumerate(zip(self.class_names, bounds, bounds[1:], strict=False)):
            names = None if self.image_names is None else self.image_names[first:last]
            yield ClassImages(name, self.images[first:last], names, above=above[number])


def fingerprint_of(pack: Pack, hashing: Hashing = lambda done, total: None) -> str:
    """Return the hash of the content of a pack, whatever its file says.

    Args:
        pack: the pack.
        hashing: told of the progress.
    """
    names: list[Any] = [pack.class_names] if pack.image_names is None else [pack.class_names, pack.image_names]
    names += [dict(pack.nodes)] if pack.nodes else []
    digest = hashlib.sha256(json.dumps([pack.images.shape, *names]).encode())
    digest.update(np.ascontiguousarray(pack.offsets).tobytes())
    row_bytes = max(1, pack.images[:1].nbytes)
    rows = max(1, _AT_ONCE // row_bytes)
    for first in range(0, len(pack.images), rows):
        digest.update(np.ascontiguousarray(pack.images[first : first + rows]).data.cast("B"))
        hashing(min(first + rows, len(pack.images)) * row_bytes, pack.images.nbytes)
    return digest.hexdigest()


def write_pack(
    path: Path,
    content: Pack | Iterable[ClassImages],
    stamp: str = "",
    hashing: Hashing = lambda done, total: None,
) -> Pack:
    """Write a pack to `path`, whole or not at all, and return it as it is read.

    Of classes that come one after the other, memory holds one at a time.

    Args:
        path: the file.
        content: a pack, or its classes.
        stamp: names, sizes and times of the raw files, hashed; empty where they are unknown.
        hashing: told of the progress of the hash, which is taken when all classes are written.

    Raises:
        DataError: the directory is not writable, or the disk is full.
    """
    classes = content.classes() if isinstance(content, Pack) else content
    names: list[str] = []
    offsets, image_names = [0], list[str]()
    remarks = list(content.remarks) if isinstance(content, Pack) else []
    nodes = defaultdict[str, list[int]](list)
    try:
        with written_rows(path) as writer:
            for part in classes:
                writer.add(part.images)
                for node in part.above:
                    nodes[node].append(len(names))
                names.append(part.name)
                offsets.append(offsets[-1] + len(part.images))
                image_names += part.image_names or ()
                remarks += part.remarks
            pack = Pack(
                writer.rows(),
                np.array(offsets, np.int64),
                tuple(names),
                tuple(image_names) or None,
                tuple(remarks),
                nodes=nodes,
            )
            text = json.dumps([pack.class_names, pack.image_names, pack.remarks, nodes]).encode()
            tensors: dict[str, npt.NDArray[Any]] = {"offsets": pack.offsets, "names": np.frombuffer(text, np.uint8)}
            writer.finish(tensors, {"fingerprint": fingerprint_of(pack, hashing), "stamp": stamp})
    except OSError as error:
        raise DataError(
            f"cannot store the packed data in {path.parent}: {error.strerror}. "
            "Free some space or make it writable, or set METABENCH_CACHE to another directory."
        ) from error
    written = read_pack(path)
    assert written is not None
    return written


def read_pack(path: Path, stamp: str = "") -> Pack | None:
    """Return the pack at `path`, or None without a file.

    Its images are mapped, and not read: `verify_pack` finds a changed image.

    Args:
        path: the file.
        stamp: the stamp that the pack must have, to be read; empty reads any.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    if not os.path.exists(path):
        return None
    try:
        file = map_rows(path)
        return None if stamp and file.metadata["stamp"] != stamp else _pack_of(file)
    except (DamagedFile, KeyError, ValueError) as error:
        raise _damaged(path) from error
    except OSError as error:
        raise DataError(
            f"cannot read the packed data in {path}: {error.strerror}. Make the file readable, or delete it"
        ) from error


def verify_pack(path: Path, hashing: Hashing = lambda done, total: None) -> Pack:
    """Read all of the pack at `path`, compare its hash, and return it.

    Args:
        path: the file.
        hashing: told of the progress.

    Raises:
        DataError: the file is missing, damaged or cannot be read.
    """
    pack = read_pack(path)
    if pack is None:
        raise DataError(f"there is no packed data in {path}")
    if fingerprint_of(pack, hashing) != pack.stored_fingerprint:
        raise _damaged(path)
    return pack


def _pack_of(file: RowFile) -> Pack:
    class_names, image_names, remarks, *later = json.loads(file.tensors["names"].tobytes())
    return Pack(
        images=file.rows,
        offsets=file.tensors["offsets"].copy(),
        class_names=tuple(class_names),
        image_names=None if image_names is None else tuple(image_names),
        remarks=tuple(remarks),
        stored_fingerprint=file.metadata["fingerprint"],
        nodes=later[0] if later else {},  # packs of earlier versions have none
    )


def _damaged(path: Path) -> DataError:
    return DataError(f"the packed data in {path} is damaged: delete that file, and the next run packs it again")
