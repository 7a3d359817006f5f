"""Pack classes of image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from metabench.api import ClassImages, DataError, Progress
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.decoding import Box, DamagedImage, Encoded, Pixels, decoded, on_all_cores

#: Number of files that a message names.
NAMED = 20
#: Number of files that a remark names.
_NAMED_IN_REMARK = 3


@dataclass(frozen=True)
class Photo:
    """An image file of a class.

    Attributes:
        name: its name within the class, see `metabench.api.Pack`.
        place: the place that messages name, e.g. its path.
        source: the file.
        box: the part of the image that is taken; None takes all.
    """

    name: str
    place: str
    source: Encoded
    box: Box | None = None


@dataclass(frozen=True)
class PhotoClass:
    """The image files of a class, and remarks for records."""

    name: str
    photos: Sequence[Photo]
    remarks: Sequence[str] = ()


def packed(classes: Sequence[PhotoClass], config: ImageConfig, title: str, progress: Progress) -> Iterator[ClassImages]:
    """Yield the [n, C, S, S] images of each class, decoded on all cores.

    Args:
        classes: the classes; memory holds the images of one at a time.
        config: size and colours of the images, and what becomes of damaged files.
        title: name of the work, for the progress.
        progress: told of each image.

    Raises:
        DataError: files are damaged, which are named all at once; or those of a class all are, and were skipped.
    """
    total = sum(len(one.photos) for one in classes)
    results = on_all_cores(partial(_decoded, config=config), (photo for one in classes for photo in one.photos))
    done, damaged = 0, list[str]()
    for one in classes:
        found, of_class = list[tuple[str, Pixels]](), list[str]()
        for photo in one.photos:
            result = next(results)
            done += 1
            progress(done, total, title)
            if isinstance(result, DamagedImage):
                of_class.append(f"{photo.place} ({result})")
            elif not damaged:
                found.append((photo.name, result))
        skipped = config.damaged == "skip" and bool(found)
        damaged += [] if skipped else of_class
        if not damaged:
            remarks = [*one.remarks, *([_skipped(one.name, of_class)] if of_class else [])]
            yield ClassImages(one.name, np.stack([pixels for _, pixels in found]), [name for name, _ in found], remarks)
    if damaged:
        raise DataError(_refusal(damaged, config))


def _decoded(photo: Photo, config: ImageConfig) -> Pixels:
    return decoded(photo.source, config, photo.box)


def _skipped(name: str, damaged: Sequence[str]) -> str:
    more = ", …" if len(damaged) > _NAMED_IN_REMARK else ""
    files = "file was" if len(damaged) == 1 else "files were"
    return f"{len(damaged)} damaged {files} skipped in class '{name}': {', '.join(damaged[:_NAMED_IN_REMARK])}{more}"


def _refusal(damaged: Sequence[str], config: ImageConfig) -> str:
    one = len(damaged) == 1
    count = "1 image cannot be read" if one else f"{len(damaged)} images cannot be read"
    more = [f"… and {len(damaged) - NAMED} more"] if len(damaged) > NAMED else []
    advice = (
        "their classes would be empty: replace the files, or remove the classes"
        if config.damaged == "skip"
        else f"replace {'it' if one else 'them'}, or leave {'it' if one else 'them'} out with `damaged: skip`"
    )
    return "\n  ".join([f"{count}; {advice}:", *damaged[:NAMED], *more])
