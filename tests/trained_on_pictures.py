"""A run on image files, for tests of what people do with a trained learner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metabench as interface
from picture_files import encoded, write_files

SUITE = """\
name: pictures
datasets:
  pictures: {use: folder, params: {root: ROOT, image_size: 16, channels: 1, ratios: [4, 3, 3], resize: [18, 20]}}
  glyphs: {}
backbones: {conv4: {params: {channels: 4, downsample: stride}}}
algorithms:
  protonet: {}
  maml: {params: {inner_steps: 1, test_inner_steps: 1}, backbone: {norm: batch}}
ways: [3]
shots: [2]
queries: 3
train: {steps: 2, validate_every: 2, validation_episodes: 4}
eval: {episodes: 6}
"""


def shade(level: int, seed: int) -> bytes:
    """Return the content of a PNG file of a grey level, with little noise: classes that are told apart."""
    noise = np.random.default_rng([level, seed]).integers(-10, 11, (22, 26))
    return encoded(Image.fromarray(np.clip(level + noise, 0, 255).astype(np.uint8)))


@contextmanager
def trained_on_pictures(folder: Path, cache: Path) -> Iterator[Path]:
    """Yield a folder with the images ``pictures/CLASS/N.png`` and the run ``out`` of `SUITE`."""
    files = {f"{name}/{i}.png": shade(25 * ord(name) % 256, i) for name in "abcdefghij" for i in range(6)}
    root = write_files(folder / "pictures", files)
    text = SUITE.replace("ROOT", str(root))
    (folder / "s.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METABENCH_CACHE", str(cache))
        patch.delenv("METABENCH_DATA", raising=False)
        interface.run(folder / "s.yaml", output=folder / "out", device="cpu", workers=False)
        yield folder
