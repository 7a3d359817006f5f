from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import Command

DATASET = '''
from pathlib import Path

import numpy as np
import torch

from metabench import api


class FolderConfig(api.Config):
    root: str
    names: bool = True


class Folder(api.Dataset):
    """One file of images for each class, in the order of the directory."""

    Config = FolderConfig

    def pack(self, files, progress):
        paths = list(Path(self.config.root).glob("*.npy"))
        arrays = [np.load(path) for path in paths]
        offsets = np.cumsum([0, *map(len, arrays)])
        return api.Pack(np.concatenate(arrays), offsets, tuple(path.stem for path in paths))

    def split(self, pack):
        splits = {}
        for name in ("train", "val", "test"):
            classes = [c for c, class_name in enumerate(pack.class_names) if class_name.startswith(name)]
            images = [pack.images[pack.offsets[c] : pack.offsets[c + 1]] for c in classes]
            splits[name] = api.Split(
                torch.tensor(np.concatenate(images)),
                torch.tensor(np.cumsum([0, *map(len, images)])),
                [pack.class_names[c] for c in classes],
            )
        return splits
'''

SUITE = """\
name: folder
datasets: {LABEL: {use: "./folder.py:Folder", params: {root: ROOT}}}
backbones: {conv4: {params: {channels: 2, downsample: stride}}}
algorithms: {protonet: {}}
ways: [2]
shots: [1]
queries: 2
train: {steps: 2, validate_every: 2, validation_episodes: 2}
eval: {episodes: 10}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with the same suite, dataset and images in two folders, written in another order."""
    names = [f"{split}{c}" for split in ("train", "val", "test") for c in range(3)]
    for folder, order in (("one", names), ("two", names[::-1])):
        (tmp_path / folder / "images").mkdir(parents=True)
        (tmp_path / folder / "folder.py").write_text(DATASET, encoding="utf-8")
        text = SUITE.replace("ROOT", str(tmp_path / folder / "images")).replace("LABEL", "mine")
        (tmp_path / folder / "suite.yaml").write_text(text, encoding="utf-8")
        for name in order:
            rng = np.random.default_rng(names.index(name))
            images = rng.integers(0, 256, (5, 1, 16, 16), dtype=np.uint8)
            np.save(tmp_path / folder / "images" / f"{name}.npy", images)
    return tmp_path


def record_in(output: Path) -> dict[str, Any]:
    (path,) = (output / "cells").glob("*.json")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def test_the_same_data_in_two_folders_have_the_same_episodes(
    metabench: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METABENCH_CACHE", str(place / "cache"))
    for folder in ("one", "two"):
        assert metabench("run", str(place / folder / "suite.yaml"), "--output", str(place / folder / "out")).code == 0
    records = [record_in(place / folder / "out") for folder in ("one", "two")]
    assert records[0]["data"] == records[1]["data"]
    assert records[0]["data"]["raw_files"] == 9
    results = [np.load(next((place / folder / "out" / "cells").glob("*.npz"))) for folder in ("one", "two")]
    for name in ("metrics/accuracy", "groups"):
        np.testing.assert_array_equal(results[0][name], results[1][name])
    compared = metabench("compare", str(place / "one" / "out"), str(place / "two" / "out"))
    assert compared.code == 0
    assert "missing" not in compared.out
    assert sorted(path.name for path in (place / "one").iterdir()) == ["folder.py", "images", "out", "suite.yaml"]


def test_another_label_has_the_same_episodes(metabench: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METABENCH_CACHE", str(place / "cache"))
    other = place / "one" / "other.yaml"
    other.write_text(
        (place / "one" / "suite.yaml").read_text(encoding="utf-8").replace("mine", "yours"), encoding="utf-8"
    )
    outputs = []
    for suite in ("suite.yaml", "other.yaml"):
        outputs.append(place / "one" / f"out-{suite}")
        assert metabench("run", str(place / "one" / suite), "--output", str(outputs[-1])).code == 0
    one, two = map(record_in, outputs)
    assert one["data"]["episodes"] == two["data"]["episodes"]
    assert one["metrics"] == two["metrics"]
