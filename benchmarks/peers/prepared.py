"""Write Omniglot as PNG files, and episodes as tensors.

`run.py` starts this script as a process.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from contestants import EVALUATION_BATCH, PREPARED_BATCHES, TASKS
from metabench_cells import CellWork
from torch import Tensor

from metabench.data.packing import DataRoots

PARTS = ("images_background", "images_evaluation")
#: Index of the first test character in the split of Vinyals et al., among all characters in order.
FIRST_TEST_CHARACTER = 1200

Task = tuple[Tensor, Tensor, Tensor, Tensor]


def png_folder(data: Path) -> Path:
    """Return the folder with both parts, as torchvision expects it."""
    return data / "omniglot-py"


def test_characters(data: Path) -> list[Path]:
    """Return the folders of the characters of metabench's test split."""
    characters = [folder for part in PARTS for folder in sorted((png_folder(data) / part).glob("*/*"))]
    return characters[FIRST_TEST_CHARACTER:]


def extract_pngs(data: Path) -> None:
    """Unpack Omniglot below `data`; download it if METABENCH_DATA lacks it."""
    folder = png_folder(data)
    if all((folder / part).is_dir() for part in PARTS):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    archives = _archives()
    if archives is None:
        from torchvision.datasets import Omniglot

        for background in (True, False):
            Omniglot(str(data), background=background, download=True)
        return
    with tempfile.TemporaryDirectory(dir=data) as unpacked:
        for archive in archives:
            with zipfile.ZipFile(archive) as file:
                file.extractall(unpacked, [name for name in file.namelist() if name.startswith(PARTS)])
        folder.mkdir(exist_ok=True)
        for part in PARTS:
            (Path(unpacked) / part).rename(folder / part)


def _archives() -> list[Path] | None:
    for source in DataRoots.from_environment(os.environ).sources:
        for folder in (source / "omniglot", source):
            archives = [folder / f"{part}.zip" for part in PARTS]
            if all(archive.is_file() for archive in archives):
                return archives
    return None


def save_episodes(data: Path) -> None:
    """Write metabench's meta-batches and test batches as plain tensors."""
    work = CellWork("maml", "characters", "float32")
    for name, stream, size in (("train", work.train, TASKS), ("test", work.test, EVALUATION_BATCH)):
        batches = []
        for i in range(PREPARED_BATCHES):
            drawn = stream.batch(i * size, size)
            tensors = (drawn.support_x, drawn.support_y, drawn.query_x, drawn.query_y)
            batches.append(tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors))
        torch.save(batches, data / f"episodes-{name}.pt")


def load_episodes(data: Path, name: str) -> list[list[Task]]:
    """Return the batches of ``"train"`` or ``"test"``.

    A batch is a list of (support_x, support_y, query_x, query_y), one for each episode.
    """
    return [list(zip(*batch, strict=True)) for batch in torch.load(data / f"episodes-{name}.pt")]


if __name__ == "__main__":
    extract_pngs(Path(sys.argv[1]))
    save_episodes(Path(sys.argv[1]))
