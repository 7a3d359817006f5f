"""Results of other code beside those of a run."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

import metabench as interface
from command_line import NAMED, Command, assert_refused
from metabench.exchange.episode_sets import EpisodeSet
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = """\
name: small
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 2, downsample: stride}}}
algorithms: {protonet: {}, nearest-mean: {train: none}}
ways: [3]
shots: [2]
queries: 4
train: {steps: 2, validate_every: 2, validation_episodes: 3}
eval: {episodes: 40}
"""

Write = Callable[[Iterable[Iterable[object]]], None]


@pytest.fixture
def ran(metabench: Command) -> Command:
    """Return the command after a run of `SUITE` into ``out``."""
    Path("s.yaml").write_text(SUITE, encoding="utf-8")
    ended = metabench("run", "s.yaml", "--output", "out", "--in-process", "--device", "cpu")
    assert ended.code == 0, ended.err
    return metabench


def write(header: str, rows: Iterable[Iterable[object]]) -> None:
    with open("theirs.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def nearest_pixel_means(episodes: EpisodeSet) -> list[list[int]]:
    """Return the predictions of an own loop: the nearest mean image."""
    found = []
    for support_x, support_y, query_x, _ in episodes:
        means = torch.stack([support_x[support_y == label].mean(dim=0) for label in range(3)])
        found.append(torch.cdist(query_x.flatten(1), means.flatten(1)).argmin(dim=1).tolist())
    return found


def test_predictions_of_an_own_loop_are_ranked_and_paired_with_the_cells(ran: Command) -> None:
    episodes = interface.episodes("glyphs", way=3, shot=2, queries=4, count=40)
    predictions = nearest_pixel_means(episodes)
    rows = [(e, q, label) for e, labels in enumerate(predictions) for q, label in enumerate(labels)]
    write("episode,query,prediction", np.random.default_rng(0).permutation(rows).tolist())
    ended = ran("import", "theirs.csv", "out", "--method", "pixels", "--output", "theirs")
    assert ended.code == 0, ended.err
    expected = [
        float((torch.tensor(labels) == episode.query_y).double().mean())
        for labels, episode in zip(predictions, episodes, strict=True)
    ]
    (record,) = Store(Path("theirs")).records()
    assert (record.algorithm, record.backbone, record.external) == ("pixels", "conv4", "theirs.csv")
    assert record.primary is not None
    assert record.primary.value == pytest.approx(np.mean(expected))
    assert record.primary.data_ci95 is not None
    assert np.allclose(Store(Path("theirs")).episodes(record).figures["accuracy"], expected, rtol=0, atol=1e-12)
    assert f"pixels, seed 0: {100 * np.mean(expected):.2f} % in 40 of 40 episodes" in ended.out
    table = ran("leaderboard", "out", "theirs")
    assert table.code == 0, table.err
    assert "pixels (external)" in table.out
    assert "results of other code, imported from theirs.csv: how they were made was not checked" in table.out
    data = json.loads(ran("leaderboard", "out", "theirs", "--format", "json").out)
    assert sorted(one["rank"] for one in data)[:2] != [None, None]
    assert all(one["rank"] for one in data), "all were tested on the same episodes"
    both = interface.load_run("out", "theirs")
    (other,) = both.only(algorithm="protonet").cells.index
    difference = both.compare(record.cell, other)
    values = both.values()
    assert difference.difference == pytest.approx((values[record.cell] - values[other]).mean())
    for command in ("markdown", "latex", "html", "csv"):
        assert "pixels" in ran("leaderboard", "out", "theirs", "--format", command).out
    assert ran("report", "out", "theirs", "--output", "report.html").code == 0
    assert "pixels (external)" in Path("report.html").read_text(encoding="utf-8")


def test_the_own_predictions_of_a_cell_give_its_accuracies(ran: Command) -> None:
    (cell,) = interface.load_run("out", only={"algorithm": "protonet"}).cells.index
    outputs = Store(Path("out")).outputs(cell)
    assert outputs is not None
    labels = outputs.outputs.argmax(axis=-1)
    write("episode,query,prediction", [(e, q, labels[e, q]) for e in range(40) for q in range(12)])
    assert ran("import", "theirs.csv", "s.yaml", "--method", "again", "--output", "theirs").code == 0
    values = interface.load_run("out", "theirs").values()
    (imported,) = interface.load_run("theirs").cells.index
    assert np.allclose(values[cell], values[imported], rtol=0, atol=1e-12)


def test_accuracies_of_several_seeds_stand_as_one_method(ran: Command) -> None:
    rng = np.random.default_rng(0)
    write("episode,accuracy,method,seed", [(e, rng.random(), "theirs", s) for s in range(3) for e in range(25)])
    assert ran("import", "theirs.csv", "out", "--output", "theirs").code == 0
    table = ran("leaderboard", "out", "theirs")
    assert table.out.count("theirs (external)  ") >= 1
    assert "ranked and compared on the first 25 episodes, which all of them have" in table.out
    assert sorted(interface.load_run("theirs").cells["seed"]) == [0, 1, 2]


def test_corrected_results_replace_earlier_ones(ran: Command) -> None:
    for accuracy in (0.25, 0.5):
        write("episode,accuracy", [(0, accuracy), (1, accuracy)])
        assert ran("import", "theirs.csv", "out", "--method", "m", "--output", "theirs").code == 0
    assert interface.load_run("theirs").cells["accuracy"].tolist() == [0.5]


def test_names_of_images_and_classes_serve_where_there_are_names(metabench: Command) -> None:
    Path("named.py").write_text(textwrap.dedent(NAMED), encoding="utf-8")
    target = ["./named.py:Named", "--way", "3", "--shot", "2", "--queries", "4", "--episodes", "5"]
    assert metabench("episodes", "export", *target, "--output", "e.json").code == 0
    drawn = [json.loads(line) for line in Path("e.json").read_text(encoding="utf-8").splitlines()]
    # The first query of each class is right, the others are called by the first class.
    rows = [
        (number, f"{name}/{image}", name if place == 0 else next(iter(episode["support"])))
        for number, episode in enumerate(drawn)
        for name, images in episode["query"].items()
        for place, image in enumerate(images)
    ]
    write("episode,query,prediction", rows)
    ended = metabench("import", "theirs.csv", *target, "--method", "m", "--backbone", "none", "--output", "theirs")
    assert ended.code == 0, ended.err
    assert interface.load_run("theirs").values().iloc[:, 0].tolist() == pytest.approx([6 / 12] * 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv", "out", "--method", "m"], "there is no file none.csv"),
        (["theirs.csv", "out"], "theirs.csv has no column 'method': name it by --method"),
        (["theirs.csv", "glyphs", "--method", "m"], "say by --backbone in which table the results stand"),
        (["theirs.csv", "sinusoid", "--method", "m", "--backbone", "b"], "only results of the classification of test"),
        (
            ["theirs.csv", "out", "--method", "m", "--output", "out"],
            "out holds a run, which would set",
        ),
        (["theirs.csv", "out", "--method", "m", "--episodes", "2"], "theirs.csv:4: column 'episode': '2' is not an"),
    ],
)
def test_wrong_imports_are_refused_and_write_nothing(ran: Command, arguments: list[str], message: str) -> None:
    write("episode,accuracy", [(0, 1), (1, 0.5), (2, 0)])
    before = sorted(Path().rglob("*"))
    assert_refused(ran("import", *arguments), [message])
    assert sorted(Path().rglob("*")) == before
