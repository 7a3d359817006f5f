"""The trained learner of a cell answers as in its test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import metabench as interface
from metabench.api import Split
from metabench.errors import StoreError, UsageError
from metabench.learners.trained import TrainedLearner

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = """\
name: small
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 4, downsample: stride}}}
algorithms:
  protonet: {}
  maml: {params: {inner_steps: 1, test_inner_steps: 2}}
  siamese: {params: {pairs: 8, units: 8}}
  simpleshot: {train: {steps: 4, batch: 16}}
  nearest-mean: {weights: protonet}
ways: [3]
shots: [2]
queries: 4
seeds: [3]
train: {steps: 3, validate_every: 2, validation_episodes: 4}
eval: {episodes: 8}
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, glyphs_cache: Path) -> Iterator[Path]:
    """Return the output directory of a run of `SUITE`."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "s.yaml").write_text(SUITE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METABENCH_CACHE", str(glyphs_cache))
        patch.delenv("METABENCH_DATA", raising=False)
        interface.run(folder / "s.yaml", output=folder / "out", device="cpu", workers=False)
        yield folder / "out"


@pytest.fixture
def run(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> interface.Run:
    """Return a copy of the run, in ``out``."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(kept, "out")
    return interface.load_run("out")


def learner_of(run: interface.Run, algorithm: str) -> TrainedLearner:
    return run.only(algorithm=algorithm).learner(device="cpu")


def test_every_learner_has_the_accuracies_of_its_cell(run: interface.Run) -> None:
    episodes = interface.episodes("glyphs", way=3, shot=2, queries=4, count=8)
    values = run.values()
    for cell, name in run.cells["algorithm"].items():
        learner = run.learner(str(cell), device="cpu")
        assert learner.remarks == []
        found = []
        for number, (support_x, support_y, query_x, query_y) in enumerate(episodes):
            probabilities = learner.probabilities(support_x, support_y, query_x, episode=number)
            assert torch.allclose(probabilities.sum(dim=1), torch.ones(12, dtype=torch.float64))
            found.append(float((probabilities.argmax(dim=1) == query_y).double().mean()))
        assert np.allclose(found, values[cell], rtol=0, atol=1e-12), name


def test_pixels_and_normalised_images_give_the_same_scores(run: interface.Run) -> None:
    learner, episodes = learner_of(run, "protonet"), interface.episodes("glyphs", way=3, shot=2, queries=4, count=2)
    support_x, support_y, query_x, _ = episodes[1]
    split, drawn = episodes.data.splits["test"], episodes.indices(1)
    assert isinstance(split, Split)
    pixels = [split.rows.take(torch.from_numpy(part[0])) for part in (drawn.support, drawn.query)]
    expected = learner.scores(support_x, support_y, query_x)
    assert torch.equal(learner.scores(pixels[0], support_y, pixels[1]), expected)
    assert torch.equal(learner.scores(pixels[0].numpy(), support_y.numpy(), pixels[1].numpy()), expected)
    assert torch.allclose(learner.scores(support_x, support_y, query_x, batch=5), expected, rtol=1e-4, atol=1e-5)


def test_a_learner_of_any_way_serves_other_ways_and_uneven_shots(run: interface.Run) -> None:
    images = torch.randint(0, 256, (7, 1, 28, 28), dtype=torch.uint8)
    scores = learner_of(run, "protonet").scores(images, torch.tensor([0, 1, 2, 3, 0, 0, 1]), images[:2])
    assert scores.shape == (2, 4)
    with pytest.raises(UsageError, match="the support set has 4: the learner of this cell tells apart 3 classes"):
        learner_of(run, "maml").scores(images, torch.tensor([0, 1, 2, 3, 0, 0, 1]), images[:2])


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((3, 1, 14, 14), [0, 1, 2], r"the support images have the shape \[3, 1, 14, 14\]: .* takes \[n, 1, 28, 28\]"),
        ((0, 1, 28, 28), [], r"the support images have the shape \[0, 1, 28, 28\]"),
        ((3, 1, 28, 28), [0, 1], "give each one a label"),
        ((3, 1, 28, 28), [0, 1, 3], r"the labels are \[0, 1, 3\] for 3 support images"),
        ((3, 1, 28, 28), [0, 0, 0], "the support set has 1"),
    ],
)
def test_wrong_inputs_are_refused(run: interface.Run, shape: tuple[int, ...], labels: list[int], message: str) -> None:
    learner = learner_of(run, "protonet")
    with pytest.raises(UsageError, match=message):
        learner.scores(torch.zeros(shape), torch.tensor(labels), torch.zeros(1, 1, 28, 28))


def test_a_learner_says_that_its_code_has_changed(run: interface.Run) -> None:
    for path in Path("out/weights").glob("*.json"):
        summary = json.loads(path.read_text(encoding="utf-8"))
        summary["origin"]["backbone"] = "other"
        path.write_text(json.dumps(summary), encoding="utf-8")
    assert learner_of(run, "protonet").remarks == [
        "the code of the backbone has changed since its weights were made: answers may differ"
    ]


def test_without_kept_weights_there_is_no_learner(run: interface.Run) -> None:
    for path in Path("out/weights").iterdir():
        path.unlink()
    with pytest.raises(StoreError, match="out keeps no weights of protonet"):
        learner_of(run, "protonet")
    Path("out/suite.yaml").unlink()
    with pytest.raises(StoreError, match=r"there is no out/suite\.yaml"):
        learner_of(run, "protonet")


def test_the_random_numbers_of_the_caller_stay_as_they_are(run: interface.Run) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    learner = learner_of(run, "maml")
    episode = interface.episodes("glyphs", way=3, shot=2, queries=4, count=2)[0]
    learner.scores(episode.support_x, episode.support_y, episode.query_x)
    assert torch.equal(torch.rand(3), expected)
