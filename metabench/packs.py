"""Packed datasets on disk: one safetensors file each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from metabench.errors import DataError
from metabench.files import atomic_file


@dataclass(frozen=True)
class Pack:
    """Images of a dataset before it is split.

    Attributes:
        images: [n, C, H, W] uint8, sorted by class.
        offsets: [classes + 1] int64; class c is ``images[offsets[c]:offsets[c + 1]]``.
        class_names: another name for each class.
        image_names: a name for each image, so that episodes do not depend on the order of a directory; None where the
            order of the images is always the same.
        fingerprint: sha256 over images, offsets and names; identifies the data in a record.
    """

    images: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    image_names: tuple[str, ...] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Return the sha256 of images, offsets and names, in hexadecimal."""
        names = [self.class_names] if self.image_names is None else [self.class_names, self.image_names]
        digest = hashlib.sha256(json.dumps([self.images.shape, *names]).encode())
        digest.update(np.ascontiguousarray(self.offsets).tobytes())
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()


def write_pack(path: Path, pack: Pack, stamp: str = "") -> None:
    """Write `pack` to `path`, whole or not at all.

    Args:
        path: the file.
        pack: its content.
        stamp: names, sizes and times of the raw files, hashed; empty where they are unknown.

    Raises:
        DataError: the directory is not writable, or the disk is full.
    """
    data = save(
        {"images": np.ascontiguousarray(pack.images), "offsets": np.ascontiguousarray(pack.offsets)},
        metadata={
            "class_names": json.dumps(pack.class_names),
            "image_names": json.dumps(pack.image_names),
            "fingerprint": pack.fingerprint,
            "stamp": stamp,
        },
    )
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise DataError(
            f"cannot store the packed data ({len(data) / 2**20:.0f} MiB) in {path.parent}: {error.strerror}. "
            "Free some space or make it writable, or set METABENCH_CACHE to another directory."
        ) from error


def read_pack(path: Path, stamp: str = "") -> Pack | None:
    """Return the pack at `path`, or None without a file.

    Args:
        path: the file.
        stamp: the stamp that the pack must have, to be read; empty reads any.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    if not os.path.exists(path):
        return None
    damaged = f"the packed data in {path} is damaged: delete that file, and the next run packs it again"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            if stamp and metadata.get("stamp") != stamp:
                return None
            image_names = json.loads(metadata["image_names"])
            pack = Pack(
                images=file.get_tensor("images"),
                offsets=file.get_tensor("offsets"),
                class_names=tuple(json.loads(metadata["class_names"])),
                image_names=None if image_names is None else tuple(image_names),
            )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(damaged) from error
    except OSError as error:
        raise DataError(
            f"cannot read the packed data in {path}: {error.strerror}. Make the file readable, or delete it"
        ) from error
    if pack.fingerprint != metadata.get("fingerprint"):
        raise DataError(damaged)
    return pack
