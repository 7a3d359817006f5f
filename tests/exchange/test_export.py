"""Episodes as files for other code."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import metabench as interface
from command_line import NAMED, Command, assert_refused
from metabench.data.episodes_files import read_episodes_file

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def named(metabench: Command) -> str:
    """Return a dataset whose images have names."""
    Path("named.py").write_text(textwrap.dedent(NAMED), encoding="utf-8")
    return "./named.py:Named"


def test_arrays_hold_the_tensors_of_the_episodes(metabench: Command) -> None:
    ended = metabench(
        *("episodes", "export", "glyphs", "--way", "3", "--shot", "2", "--queries", "4", "--episodes", "7"),
        *("--seed", "5", "--split", "val", "--output", "e.npz"),
    )
    assert ended.code == 0, ended.err
    assert ended.out == "e.npz: <7 episodes: glyphs · 3-way 2-shot · val · seed 5>\n"
    expected = interface.episodes("glyphs", way=3, shot=2, queries=4, count=7, seed=5, split="val")
    with np.load("e.npz") as arrays:
        images = torch.from_numpy(arrays["images"])
        assert images.dtype == torch.uint8
        assert len(images) <= 7 * 3 * 6
        mean, std = (torch.tensor(arrays[name], dtype=torch.float32).reshape(-1, 1, 1) for name in ("mean", "std"))
        for number, episode in enumerate(expected):
            for name in ("support", "query"):
                x = images[arrays[name][number]].float().div(255).sub(mean).div(std)
                assert torch.equal(x, getattr(episode, f"{name}_x"))
                assert arrays[f"{name}_y"][number].tolist() == getattr(episode, f"{name}_y").tolist()
            classes = arrays["class_names"][arrays["classes"][number]].tolist()
            assert classes == list(expected.classes(number))


def test_names_are_those_of_fixed_episodes_and_can_be_tested_as_such(metabench: Command, named: str) -> None:
    options = ("--way", "3", "--shot", "2", "--queries", "4", "--episodes", "6")
    ended = metabench("episodes", "export", named, *options, "--output", "e.json")
    assert ended.code == 0, ended.err
    drawn = interface.episodes(named, way=3, shot=2, queries=4, count=6)
    fixed = interface.episodes(named, file="e.json")
    assert len(fixed) == 6
    assert len(Path("e.json").read_text(encoding="utf-8").splitlines()) == 6, "an episode a line"
    assert [episode.place.rpartition(":")[2] for episode in read_episodes_file(Path("e.json"))[1]] == list("123456")
    for number in range(6):
        assert torch.equal(fixed[number].support_x, drawn[number].support_x)
        assert fixed.classes(number) == drawn.classes(number)
        # The same queries; a file has an order of its own.
        for label in range(3):
            ours, theirs = (episode.query_x[episode.query_y == label] for episode in (drawn[number], fixed[number]))
            assert {image.numpy().tobytes() for image in ours} == {image.numpy().tobytes() for image in theirs}
    assert fixed.key != drawn.key


def test_the_episodes_of_a_suite_are_those_that_it_tests(metabench: Command) -> None:
    ended = metabench("episodes", "export", "small.yaml", "--output", "suite.npz")
    assert ended.code == 0, ended.err
    ended = metabench(
        "episodes", "export", "glyphs", "--way", "2", "--queries", "2", "--episodes", "10", "--output", "d.npz"
    )
    assert ended.code == 0, ended.err
    with np.load("suite.npz") as one, np.load("d.npz") as other:
        assert set(one) == set(other)
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_episodes_of_a_source_are_arrays_of_numbers(metabench: Command) -> None:
    ended = metabench("episodes", "export", "sinusoid", "--shot", "5", "--episodes", "3", "--output", "s.npz")
    assert ended.code == 0, ended.err
    with np.load("s.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays} == {
            "support_x": (3, 5, 1),
            "support_y": (3, 5, 1),
            "query_x": (3, 15, 1),
            "query_y": (3, 15, 1),
        }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["glyphs", "--output", "e.json"], "'glyphs' names no images, so that a file cannot name them: write arrays"),
        (["glyphs", "--output", "e.csv"], "e.csv: end its name with .json, for names of images, or .npz, for arrays"),
        (["glyphs", "--output", "small.yaml"], "small.yaml: end its name with"),
        (["glyphs", "--only", "shot=1", "--output", "e.npz"], "glyphs is a dataset, and --profile and --only choose"),
        (["small.yaml", "--way", "3", "--output", "e.npz"], "--way describes episodes of a dataset, and small.yaml is"),
        (["small.yaml", "--only", "shot=7", "--output", "e.npz"], "the suite has no such shot"),
        (["glyphs", "--param", "size", "--output", "e.npz"], "--param size: give NAME=VALUE"),
        (["glyphs", "--param", "size=3", "--output", "e.npz"], "unknown key 'size'"),
        (["nothing", "--output", "e.npz"], "no suite 'nothing'"),
    ],
)
def test_what_cannot_be_exported_is_refused(metabench: Command, arguments: list[str], message: str) -> None:
    before = sorted(Path().iterdir())
    assert_refused(metabench("episodes", "export", *arguments), [message])
    assert sorted(Path().iterdir()) == before


def test_several_sets_of_a_suite_are_named_and_no_file_is_overwritten(metabench: Command) -> None:
    text = Path("small.yaml").read_text(encoding="utf-8")
    Path("two.yaml").write_text(text.replace("shots: [1]", "shots: [1, 3]"), encoding="utf-8")
    ended = metabench("episodes", "export", "two.yaml", "--output", "e.npz")
    assert_refused(ended, ["the suite has 2 sets of episodes", "--only dataset=glyphs --only way=2 --only shot=3"])
    Path("e.npz").write_text("mine", encoding="utf-8")
    ended = metabench("episodes", "export", "two.yaml", "--only", "shot=3", "--output", "e.npz")
    assert_refused(ended, ["e.npz exists: delete it, or give another name"])
    assert Path("e.npz").read_text(encoding="utf-8") == "mine"
