"""What a dataset says about files before it reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Inspection:
    """A description of a file or folder by the dataset that reads it.

    Attributes:
        form: how the files give images and classes, for people.
        params: parameters of the dataset in a suite.
        splits: number of images of each class, by split; empty if they cannot be divided.
        classes: number of images of each class.
        sizes: number of images of each (width, height) in pixels.
        modes: number of images of each mode, e.g. "RGB".
        duplicates: names of images that are equal, by image.
        damaged: images that cannot be read, with the reason.
        problems: reasons why a run would be refused.
        remarks: oddities that do not prevent a run.
        suites: names of installed suites that read the files.
        new_suite: content of a suite for the files; empty if there is none.
        noun: an example of a class; ``images`` above are of it.
    """

    form: str
    params: Mapping[str, Any]
    splits: Mapping[str, Mapping[str, int]]
    classes: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    duplicates: Sequence[Sequence[str]] = ()
    damaged: Sequence[str] = ()
    problems: Sequence[str] = ()
    remarks: Sequence[str] = ()
    suites: Sequence[str] = ()
    new_suite: str = ""
    noun: str = "image"
