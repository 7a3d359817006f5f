"""Classes with too few images for an episode are not drawn, and the record and the table say so."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from command_line import Command
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

UNEVEN = """
    import numpy as np
    from metabench.api import SplitSize
    from metabench_plugins.datasets.glyphs import Glyphs

    class Uneven(Glyphs):
        def split(self, pack):
            splits = dict(super().split(pack))
            test = splits["test"]
            kept = int(test.offsets[-2]) + 3
            offsets = test.offsets.clone()
            offsets[-1] = kept
            splits["test"] = type(test)(test.images[:kept], offsets, test.class_names)
            return splits

        def sizes(self):
            sizes = dict(super().sizes())
            return {**sizes, "test": SplitSize(sizes["test"].classes, 3, sizes["test"].images_per_class)}
    """

SUITE = """
name: uneven
datasets: {uneven: {use: "./uneven.py:Uneven"}}
backbones: {conv4: {params: {channels: 2, downsample: stride}}}
algorithms: {protonet: {}}
ways: [2]
shots: [1]
queries: 4
train: {steps: 3, validation_episodes: 2}
eval: {episodes: 10}
"""


def test_a_class_with_too_few_images_leaves_the_draw_with_a_mark(metabench: Command) -> None:
    Path("uneven.py").write_text(textwrap.dedent(UNEVEN), encoding="utf-8")
    Path("uneven.yaml").write_text(SUITE, encoding="utf-8")
    ended = metabench("run", "uneven.yaml", "--output", "out")
    assert ended.code == 0, ended.err
    (record,) = Store(Path("out")).records()
    assert record.data is not None
    assert record.data.left_out == {"test": 1}
    said = "classes of test have fewer than 5 images, and are not drawn"
    assert said in ended.out
    assert said in metabench("leaderboard", "out", "--format", "markdown").out


def test_more_images_than_the_largest_class_has_are_refused_before_the_run(metabench: Command) -> None:
    Path("uneven.py").write_text(textwrap.dedent(UNEVEN), encoding="utf-8")
    Path("uneven.yaml").write_text(SUITE.replace("queries: 4", "queries: 400"), encoding="utf-8")
    ended = metabench("run", "uneven.yaml", "--output", "out")
    assert ended.code == 2
    assert "401 images of a class asked of 'uneven' (1 shots + 400 queries), whose" in ended.err
    assert not Path("out").exists()
