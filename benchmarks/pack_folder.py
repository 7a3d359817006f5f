"""Time the packing of a folder of images beside a plain loop over torchvision's ImageFolder, and a second start.

    python benchmarks/pack_folder.py caltech101/101_ObjectCategories

The folder is looked for in METABENCH_DATA. The plain loop makes the same images: resized by Lanczos, cropped at the
centre, as uint8. Packing also writes, hashes and examines the pack; rounds alternate. A second start is the time in a
new process, torch imported, from `load_splits` to the images of the first 5-way 1-shot episode.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torchvision import datasets, transforms

from metabench.data.packing import DataRoots, load_splits
from metabench.data.sampler import EpisodeShape
from metabench.engine.streams import EpisodeStream
from metabench.registry.manager import PluginManager


def packed(root: str, size: int, roots: DataRoots) -> tuple[float, int]:
    """Return the seconds of a first start, and the number of images."""
    dataset = PluginManager.from_environment().build_dataset("folder", {"root": root, "image_size": size})
    start = time.perf_counter()
    splits = load_splits("folder", dataset, roots, lambda done, total, what: None).splits
    return time.perf_counter() - start, sum(len(split.rows) for split in splits.values())


def looped(place: Path, size: int) -> tuple[float, int]:
    """Return the seconds of a plain loop over all images, and their number."""
    transform = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode.LANCZOS),
            transforms.CenterCrop(size),
            transforms.Lambda(lambda image: np.asarray(image).transpose(2, 0, 1)),
        ]
    )
    images = datasets.ImageFolder(str(place), transform)
    start = time.perf_counter()
    pixels = np.empty((len(images), 3, size, size), np.uint8)
    for index, (image, _) in enumerate(images):
        pixels[index] = image
    return time.perf_counter() - start, len(images)


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
    ours, theirs, starts = [], [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            seconds, images = packed(options.root, options.image_size, replace(roots, cache=Path(cache)))
            ours.append(images / seconds)
            command = [sys.executable, *sys.argv, "--second-start", cache]
            starts.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        seconds, images = looped(place, options.image_size)
        theirs.append(images / seconds)
    for name, values, unit in (
        ("metabench", ours, "images/s"),
        ("ImageFolder", theirs, "images/s"),
        ("second start", starts, "s"),
    ):
        shown = " ".join(f"{value:.4g}" for value in values)
        print(f"{name:12} {statistics.median(values):.4g} {unit} ({shown})")


if __name__ == "__main__":
    main()
