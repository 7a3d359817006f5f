"""Time the packing of a folder of images beside a plain loop over torchvision's ImageFolder, and a second start.

    python benchmarks/pack_folder.py caltech101/101_ObjectCategories

The folder is looked for in METABENCH_DATA. The plain loop makes the same images: resized by Lanczos, cropped at the
centre, as uint8. Packing also writes, hashes and examines the pack; rounds alternate. CPU time is that of all threads.
A second start is the time in a new process, torch imported, from `load_splits` to the images of the first 5-way 1-shot
episode.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchvision import datasets, transforms

from metabench.data.packing import DataRoots, load_splits
from metabench.data.sampler import EpisodeShape
from metabench.engine.streams import EpisodeStream
from metabench.registry.manager import PluginManager


class Rates:
    """Images per second and CPU milliseconds of an image, of each round."""

    def __init__(self) -> None:
        self.images_per_second: list[float] = []
        self.cpu_ms: list[float] = []

    def add(self, work: Callable[[], int]) -> None:
        """Time a piece of work, which returns its number of images."""
        wall, cpu = time.perf_counter(), time.process_time()
        images = work()
        self.images_per_second.append(images / (time.perf_counter() - wall))
        self.cpu_ms.append(1000 * (time.process_time() - cpu) / images)


def packed(root: str, size: int, roots: DataRoots) -> int:
    """Make the first start; return the number of images."""
    dataset = PluginManager.from_environment().build_dataset("folder", {"root": root, "image_size": size})
    splits = load_splits("folder", dataset, roots, lambda done, total, what: None).splits
    return sum(len(split.rows) for split in splits.values())


def looped(place: Path, size: int) -> int:
    """Decode all images in a plain loop; return their number."""
    transform = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode.LANCZOS),
            transforms.CenterCrop(size),
            transforms.Lambda(lambda image: np.asarray(image).transpose(2, 0, 1)),
        ]
    )
    images = datasets.ImageFolder(str(place), transform)
    pixels = np.empty((len(images), 3, size, size), np.uint8)
    for index, (image, _) in enumerate(images):
        pixels[index] = image
    return len(images)


def second_start(root: str, size: int, cache: Path) -> float:
    """Return the seconds of a start in this process with an existing pack, until the first episode."""
    roots = replace(DataRoots.from_environment(os.environ), cache=cache)
    dataset = PluginManager.from_environment().build_dataset("folder", {"root": root, "image_size": size})
    start = time.perf_counter()
    splits = load_splits("folder", dataset, roots, lambda done, total, what: None).splits
    stream = EpisodeStream(splits["test"], EpisodeShape(5, 1, 15), "test", 0, torch.device("cpu"))
    assert stream.batch(0, 1).query_x.shape[1] == 75
    return time.perf_counter() - start


def main() -> None:
    """Print images per second, and the seconds of second starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--image-size", type=int, default=84)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--second-start", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.second_start:
        print(second_start(options.root, options.image_size, options.second_start))
        return
    roots = DataRoots.from_environment(os.environ)
    place = next(source / options.root for source in roots.sources if (source / options.root).is_dir())
    ours, theirs, starts = Rates(), Rates(), list[float]()
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            ours.add(partial(packed, options.root, options.image_size, replace(roots, cache=Path(cache))))
            command = [sys.executable, *sys.argv, "--second-start", cache]
            starts.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        theirs.add(partial(looped, place, options.image_size))
    for name, values, unit in (
        ("metabench", ours.images_per_second, "images/s"),
        ("ImageFolder", theirs.images_per_second, "images/s"),
        ("metabench", ours.cpu_ms, "CPU ms an image"),
        ("ImageFolder", theirs.cpu_ms, "CPU ms an image"),
        ("second start", starts, "s"),
    ):
        shown = " ".join(f"{value:.4g}" for value in values)
        print(f"{name:12} {statistics.median(values):.4g} {unit} ({shown})")


if __name__ == "__main__":
    main()
