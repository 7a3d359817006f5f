"""The classes of image files, by a trained learner, on the command line."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import metabench as interface
from command_line import Command, assert_refused
from metabench.api import Split
from metabench.errors import UsageError
from metabench.learners.prediction import check_classifies
from metabench.records.episode_files import read_outputs
from metabench.records.record import Record
from picture_files import picture, write_files
from trained_on_pictures import trained_on_pictures

pytestmark = pytest.mark.usefixtures("one_thread")

PROTONET = ("--only", "algorithm=protonet", "--only", "dataset=pictures", "--device", "cpu")

GLYPHS = ("--only", "algorithm=protonet", "--only", "dataset=glyphs")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, glyphs_cache: Path) -> Iterator[Path]:
    with trained_on_pictures(tmp_path_factory.mktemp("predict"), glyphs_cache) as folder:
        yield folder


@pytest.fixture
def predict(metabench: Command, kept: Path) -> Callable[..., object]:
    """Return the command ``predict`` of the run, beside the folders ``support`` and ``query`` of episode 0."""
    run = interface.load_run(kept / "out", only={"dataset": "pictures"})
    params = run.record(run.cells.index[0]).identity["dataset"]["params"]
    episodes = interface.episodes("folder", way=3, shot=2, queries=3, count=2, params=params)
    split, drawn = episodes.data.splits["test"], episodes.indices(0)
    assert isinstance(split, Split)
    assert split.image_names is not None
    classes = [split.class_names[number] for number in drawn.classes[0]]
    for kind, indices, labels in (
        ("support", drawn.support[0], drawn.support_labels[0]),
        ("query", drawn.query[0], drawn.query_labels[0]),
    ):
        for number, (index, label) in enumerate(zip(indices, labels, strict=True)):
            target = Path(kind, classes[label], f"{number:02}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kept / "pictures" / classes[label] / Path(split.image_names[index]).name, target)
    Path("classes.json").write_text(json.dumps(classes), encoding="utf-8")
    files = ("--query", "query", "--support", "support")
    return lambda *options: metabench("predict", str(kept / "out"), *files, *options)


def in_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_photographs_of_an_episode_have_labels_and_probabilities_of_the_harness(predict: Command, kept: Path) -> None:
    run = interface.load_run(kept / "out", only={"dataset": "pictures", "algorithm": "protonet"})
    (cell,) = run.cells.index
    outputs = read_outputs(kept / "out" / "outputs" / f"{cell}.npz")
    temperature = run.record(cell).temperature
    assert outputs is not None
    assert temperature is not None
    classes = json.loads(Path("classes.json").read_text(encoding="utf-8"))
    ended = predict("--cell", cell[:9], "--format", "csv", "--device", "cpu")
    assert ended.code == 0, ended.err
    rows = {row["query"].rpartition("/")[2]: row for row in in_csv(ended.out)}
    learner = run.learner(device="cpu")
    episode = learner.episode(0)  # of the images that the run has packed
    scores = learner.scores(episode.support_x[0], episode.support_y[0], episode.query_x[0]).double()
    assert len(rows) == len(scores) == 9
    for number, query in enumerate(scores):
        row = rows[f"{number:02}.png"]
        assert row["prediction"] == classes[int(query.argmax())]
        found = [float(row[f"p.{name}"]) for name in classes]
        assert np.allclose(found, (query / temperature.value).softmax(dim=0), atol=1e-3)
        # Outputs are log-probabilities, kept in half precision.
        assert float(row["known"]) == pytest.approx(np.exp(outputs.outputs[0, number].max()), abs=2e-3)


def test_the_accuracy_and_the_score_of_strangers_are_said(predict: Command) -> None:
    write_files(Path("query"), {f"elsewhere/{i}.jpg": picture(i) for i in range(4)})
    ended = predict(*PROTONET, "--format", "json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    of_classes = [query for query in found["queries"] if query["class"] != "elsewhere"]
    strangers = [query for query in found["queries"] if query["class"] == "elsewhere"]
    assert (len(of_classes), len(strangers)) == (9, 4)
    assert found["accuracy"] == np.mean([query["class"] == query["prediction"] for query in of_classes])
    ours, theirs = (np.array([query["known"] for query in part]) for part in (of_classes, strangers))
    assert found["auroc"] == pytest.approx(np.sign(ours[:, None] - theirs).mean() / 2 + 0.5)
    assert all(sum(query["probabilities"].values()) == pytest.approx(1) for query in found["queries"])


def test_the_table_names_other_images_and_what_was_not_measured(predict: Command) -> None:
    shutil.rmtree("query")
    write_files(Path("query"), {"one.png": picture(1), "notes.txt": "no image", ".hidden.png": "no image"})
    shutil.copy(next(Path("support").rglob("*.png")), Path("query", "two.png"))
    ended = predict(*PROTONET)
    assert ended.code == 0, ended.err
    assert [line.split()[0] for line in ended.out.splitlines()[2:4]] == ["one.png", "two.png"]
    assert "accuracy" not in ended.out
    assert "calibrated by the temperature of the run" in ended.out
    assert "the run has not measured how well (eval.strangers)" in ended.out


def test_shots_may_differ_and_batches_do_not_change_answers(predict: Command) -> None:
    shutil.copytree(sorted(Path("support").iterdir())[0], Path("support", "another", "deeper"))
    write_files(Path("support"), {"another/more.png": picture(7)})
    whole, parts = (predict(*PROTONET, "--format", "csv", "--batch", size) for size in ("256", "2"))
    assert "another 3" in whole.err
    for one, other in zip(in_csv(whole.out), in_csv(parts.out), strict=True):
        assert one["prediction"] == other["prediction"]
        assert float(one["p.another"]) == pytest.approx(float(other["p.another"]), abs=1e-5)


def test_the_output_is_written_whole_and_overwrites_nothing(predict: Command) -> None:
    assert predict(*PROTONET, "--format", "csv", "--output", "new/p.csv").code == 0
    assert len(in_csv(Path("new/p.csv").read_text(encoding="utf-8"))) == 9
    assert_refused(predict(*PROTONET, "--output", "new/p.csv"), ["new/p.csv exists already"])


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        ({}, ["--cell", "zzz"], ["there is no cell 'zzz'"]),
        ({}, [], ["4 cells are there, and one is needed"]),
        (
            {},
            GLYPHS,
            ["the dataset 'glyphs' of cell", "reads no image files"],
        ),
        ({"support/loose.png": picture(1)}, PROTONET, ["support/loose.png is in no class folder"]),
        ({}, [*PROTONET, "--query", "missing"], ["there is no folder missing"]),
        ({"notes/a.txt": "text"}, [*PROTONET, "--query", "notes"], ["notes has no images"]),
        ({"one/a/1.png": picture(1)}, [*PROTONET, "--support", "one"], ["one has one class, 'a'"]),
        (
            {"query/bad.png": b"none", "query/cut.png": picture(1)[:80]},
            PROTONET,
            ["2 images cannot be read, replace or remove them:", "query/bad.png (", "query/cut.png ("],
        ),
        (
            {"support/more/1.png": picture(1)},
            ["--only", "algorithm=maml", "--only", "dataset=pictures"],
            ["the support set has 4: the learner of this cell tells apart 3 classes"],
        ),
    ],
)
def test_wrong_input_is_refused_in_one_message(
    predict: Command, kept: Path, change: dict[str, bytes | str], options: list[str], parts: list[str]
) -> None:
    write_files(Path(), change)
    assert_refused(predict(*options), parts)


def test_a_cell_without_weights_is_refused(predict: Command, metabench: Command, kept: Path) -> None:
    shutil.copytree(kept / "out", "bare")
    shutil.rmtree("bare/weights")
    ended = metabench("predict", "bare", *PROTONET, "--query", "query", "--support", "support")
    assert_refused(ended, ["bare keeps no weights of protonet"])


def test_a_regression_is_refused(make_record: Callable[..., Record]) -> None:
    record = make_record().model_copy(update={"task": "regression"})
    with pytest.raises(UsageError, match="is a regression: predict tells classes of images apart"):
        check_classifies(record)
