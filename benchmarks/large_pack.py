"""Pack data of the size of tieredImageNet, and measure memory and start of the processes that use it.

    python benchmarks/large_pack.py FOLDER            # 779 165 images of 84×84×3: 16.5 GB, deleted at the end
    python benchmarks/large_pack.py FOLDER --share .02

Images are noise. Memory is that of Linux: anonymous pages belong to a process, mapped ones are pages of files, which
processes share.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from metabench import api
from metabench.data.packing import DataRoots, load_splits

#: Classes of each split, and images in all, of tieredImageNet.
CLASSES = {"train": 351, "val": 97, "test": 160}
IMAGES = 779_165
EPISODES = 100


class LargeConfig(api.Config):
    """Parameters of `Large`.

    Attributes:
        images: number of images in all.
    """

    images: int = IMAGES


class Large(api.Dataset):
    """608 classes of noise."""

    Config: ClassVar[type[api.Config]] = LargeConfig
    config: LargeConfig

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Iterator[api.ClassImages]:
        """Yield one class after the other."""
        generator = np.random.Generator(np.random.PCG64(0))
        classes = sum(CLASSES.values())
        bounds = np.linspace(0, self.config.images, classes + 1).astype(int)
        for c, count in enumerate(np.diff(bounds)):
            yield api.ClassImages(f"class {c:03d}", generator.integers(0, 256, (count, 3, 84, 84), dtype=np.uint8))
            progress(c + 1, classes, "making noise")

    def split(self, pack: api.Pack) -> Mapping[str, api.Split]:
        """Return the splits."""
        splits, first = {}, 0
        for name, count in CLASSES.items():
            splits[name] = api.Split.of(pack, range(first, first + count))
            first += count
        return splits


class Memory:
    """Samples the largest anonymous memory of this process while a block runs."""

    def __enter__(self) -> Memory:
        self.peak, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, gigabytes("/proc/self/status", "RssAnon"))


def gigabytes(path: str, field: str) -> float:
    """Return a field of a file in /proc, in GB."""
    lines = Path(path).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e9


def load(cache: Path, images: int) -> Mapping[str, api.Split]:
    """Return the splits; make the pack if there is none."""
    from metabench.registry.manager import PluginManager

    name = f"{Path(__file__).resolve()}:Large"
    dataset = PluginManager([]).build_dataset(name, {"images": images})
    return load_splits(name, dataset, DataRoots((), cache), lambda done, total, what: None).splits


def write(cache: Path, images: int) -> dict[str, Any]:
    """Make the pack."""
    started = time.perf_counter()
    with Memory() as memory:
        load(cache, images)
    return {"seconds": time.perf_counter() - started, "anonymous": memory.peak}


def use(cache: Path, images: int) -> dict[str, Any]:
    """Load the pack, and draw episodes."""
    import torch

    from metabench.data.sampler import EpisodeShape
    from metabench.engine.streams import EpisodeStream

    with Memory() as memory:
        started = time.perf_counter()
        split = load(cache, images)["test"]
        stream = EpisodeStream(split, EpisodeShape(5, 1, 15), "test", 0, torch.device("cpu"))
        total = float(stream.batch(0, 1).query_x.sum())
        first = time.perf_counter() - started
        for i in range(1, EPISODES):
            total += float(stream.batch(i, 1).query_x.sum())
        seconds = time.perf_counter() - started
    # The other process is still there: pages that both have mapped count half in each.
    print("used", flush=True)
    sys.stdin.readline()
    share = {name: gigabytes("/proc/self/smaps_rollup", field) for name, field in _SHARES.items()}
    return {"first": first, "seconds": seconds, "anonymous": memory.peak, **share}


_SHARES = {"mapped": "Rss", "proportional": "Pss", "own": "Anonymous"}


def together(role: str, cache: Path, images: int, count: int) -> list[dict[str, Any]]:
    """Return the results of processes of one role that run at the same time."""
    command = [sys.executable, __file__, str(cache), "--role", role, "--images", str(images)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for process in running if role == "use" else []:
        process.stdout.readline()
    for process in running:  # all measure at the same time
        process.stdin.write("\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in running]


def show(title: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Print one line a process."""
    for result in results:
        print(f"{title}: " + ", ".join(f"{name} {value:.2f}" for name, value in result.items()), flush=True)


def main() -> None:
    """Write the pack, use it in one process and in two, and delete it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="share of the images")
    parser.add_argument("--role", choices=["write", "use"])
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args()
    if options.role:
        print(json.dumps({"write": write, "use": use}[options.role](options.folder, options.images)))
        return
    images = int(IMAGES * options.share)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        show("written (s, GB)", together("write", Path(folder), images, 1))
        show("used", together("use", Path(folder), images, 1))
        show("used again", together("use", Path(folder), images, 1))
        show("used by two", together("use", Path(folder), images, 2))


if __name__ == "__main__":
    main()
