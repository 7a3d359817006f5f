"""Episodes of a file, from the suite to the tables."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import NAMED, Command, assert_refused
from metabench.records.record import Record
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = """\
name: fixed
datasets: {named: {use: "./named.py:Named"}}
backbones: {conv4: {params: {channels: 8, norm: batch, downsample: stride}}}
algorithms: {protonet: {}, matchingnet: {train: none}}
ways: [3]
shots: [2]
queries: 4
train: {steps: 3, validation_episodes: 2}
eval: {episodes: 6, episodes_file: runs.json}
"""


def episodes(classes: list[str], count: int = 6) -> list[dict[str, Any]]:
    """Return 3-way 2-shot episodes with four queries of each class."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        chosen = rng.choice(classes, 3, replace=False).tolist()
        drawings = {name: [f"drawing {i:02}" for i in rng.permutation(20)[:6]] for name in chosen}
        made.append(
            {
                "support": {name: images[:2] for name, images in drawings.items()},
                "query": {name: images[2:] for name, images in drawings.items()},
            }
        )
    return made


@pytest.fixture
def runs(metabench: Command) -> Callable[..., list[Record]]:
    """Return a function that writes suite, dataset and file, runs them, and returns the records."""

    def start(content: object, output: str = "out", text: str = SUITE) -> list[Record]:
        write(content, text)
        ended = metabench("run", "fixed.yaml", "--output", output, "--in-process")
        assert ended.code == 0, ended.err
        return sorted(Store(Path(output)).records(), key=lambda record: record.algorithm)

    return start


def write(content: object, text: str = SUITE) -> None:
    Path("named.py").write_text(textwrap.dedent(NAMED), encoding="utf-8")
    Path("fixed.yaml").write_text(text, encoding="utf-8")
    Path("runs.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def classes(glyphs_cache: Path) -> list[str]:
    """Return the names of the test classes of the glyphs."""
    from metabench.api import Config
    from metabench.data.packing import DataRoots, load_splits
    from metabench_plugins.datasets.glyphs import Glyphs

    loaded = load_splits("glyphs", Glyphs(Config()), DataRoots((), glyphs_cache), lambda *progress: None)
    return list(loaded.splits["test"].class_names)  # type: ignore[union-attr]


def test_the_episodes_of_a_file_are_tested_and_said_to_be(
    runs: Callable[..., list[Record]], metabench: Command, classes: list[str]
) -> None:
    matchingnet, protonet = runs(episodes(classes))
    for record in (matchingnet, protonet):
        assert record.episodes_file == "runs.json"
        assert (record.way, record.shot, record.queries) == (3, 2, 4)
        assert record.primary is not None
        assert record.primary.episodes == 6
        assert record.identity["shape"]["file"] != ""
    assert matchingnet.data is not None
    assert protonet.data is not None
    assert matchingnet.data.episodes == protonet.data.episodes
    title = metabench("leaderboard", "out").out.splitlines()[0]
    assert title.endswith("6 test episodes · fixed episodes of runs.json")


def test_the_accuracies_are_those_of_the_files_order(runs: Callable[..., list[Record]], classes: list[str]) -> None:
    made = episodes(classes)
    first, again, turned = (
        runs(content, output)[0] for content, output in ((made, "a"), (made, "b"), (made[::-1], "c"))
    )
    values = [
        Store(Path(output)).episodes(record).figures["accuracy"].tolist()
        for output, record in (("a", first), ("b", again), ("c", turned))
    ]
    assert values[0] == values[1] == values[2][::-1]
    assert len(set(values[0])) > 1
    assert first.cell == again.cell
    assert first.cell != turned.cell, "other content is another cell"
    assert first.data is not None
    assert turned.data is not None
    assert first.data.episodes != turned.data.episodes


def test_a_stored_suite_finds_the_file_again(
    runs: Callable[..., list[Record]], metabench: Command, classes: list[str]
) -> None:
    records = runs(episodes(classes))
    ended = metabench("run", "out/suite.yaml", "--output", "again")
    assert ended.code == 0, ended.err
    assert {record.cell for record in Store(Path("again")).records()} == {record.cell for record in records}


def test_drawn_episodes_are_other_cells_that_share_the_training(
    runs: Callable[..., list[Record]], classes: list[str]
) -> None:
    fixed = runs(episodes(classes))[1]
    drawn = runs(episodes(classes), "drawn", SUITE.replace(", episodes_file: runs.json", ""))[1]
    assert drawn.cell != fixed.cell
    assert drawn.episodes_file == ""
    assert drawn.weights is not None
    assert fixed.weights is not None
    assert drawn.weights.sha256 == fixed.weights.sha256


def test_episodes_of_several_shapes_are_tested_one_by_one(
    runs: Callable[..., list[Record]], metabench: Command, classes: list[str]
) -> None:
    made = episodes(classes)
    for episode in made[::2]:
        name = next(iter(episode["support"]))
        episode["support"][name] = episode["support"][name][:1]
        episode["query"][name] = episode["query"][name][:3]
    text = SUITE.replace("matchingnet:", "maml: {}, matchingnet:")
    maml, matchingnet, protonet = runs(made, text=text)
    assert (maml.status, maml.train) == ("skipped", None)
    assert maml.error is not None
    assert "only an algorithm of any way fits" in maml.error
    for record in (matchingnet, protonet):
        assert record.status == "ok", record.error
        assert (record.way, record.shot, record.queries) == (0, 0, 0)
        right = Store(Path("out")).episodes(record).figures["accuracy"] * np.array([11, 12] * 3)
        assert right == pytest.approx(np.round(right)), "of 11 and 12 queries in turn"
    title = metabench("leaderboard", "out").out.splitlines()[0]
    assert title.endswith("varying ways and shots · conv4 · 6 test episodes · fixed episodes of runs.json")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "episodes: 6,",
            "",
            "fixed.yaml:9: eval: runs.json has 6 episodes, not 1000: write episodes: 6",
        ),
        ("episodes: 6,", "episodes: 7,", "fixed.yaml:9: eval.episodes: runs.json has 6 episodes, not 7"),
        (
            "episodes: 6,",
            "episodes: 6, until: {ci95: 0.01, at_most: 12},",
            "eval.until.at_most: runs.json has 6 episodes, not 12: write at_most: 6",
        ),
        (
            "ways: [3]",
            "ways: [2, 3]",
            "fixed.yaml:9: eval.episodes_file: the episodes of runs.json are 3-way 2-shot: write ways: [3], shots: [2] "
            "and queries: 4",
        ),
        ("queries: 4", "queries: 5", "write ways: [3], shots: [2] and queries: 4"),
        ("runs.json", "none.json", "cannot read the episodes of"),
        ("runs.json", "runs.json, query_balance: dirichlet", "remove query_balance"),
    ],
)
def test_a_suite_that_does_not_fit_its_file_is_refused(
    metabench: Command, classes: list[str], old: str, new: str, message: str
) -> None:
    write(episodes(classes), SUITE.replace(old, new))
    assert_refused(metabench("run", "fixed.yaml", "--output", "out"), [message])
    assert not Path("out").exists()


def test_a_name_that_the_data_lack_is_refused_before_a_training(metabench: Command, classes: list[str]) -> None:
    made = episodes(classes)
    made[3]["query"] = {name: [*images[:3], "drawing 99"] for name, images in made[3]["query"].items()}
    write(made)
    assert_refused(
        metabench("run", "fixed.yaml", "--output", "out"), ["runs.json:1: class '", "has no image 'drawing 99'"]
    )
    assert not Path("out/cells").exists()
