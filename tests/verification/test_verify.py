"""`metabench verify`: honest and altered runs, other data, weights and code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metabench as interface
from command_line import Command, Ended, assert_refused, everything_below
from metabench.analysis.estimates import estimate_of_mean
from metabench.analysis.metrics import CLASSIFICATION, by_name
from metabench.analysis.stats import DataIntervals
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.verification.agreement import contradictions
from picture_files import write_files
from trained_on_pictures import shade

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = """\
name: verified
datasets:
  pictures: {use: folder, params: {root: ROOT, image_size: 28, channels: 1, ratios: [4, 3, 3]}}
backbones: {conv4: {params: {channels: 4, downsample: stride}}}
algorithms:
  protonet: {}
  maml: {params: {inner_steps: 1, test_inner_steps: 1}, backbone: {norm: batch}}
  own: {use: "FOLDER/own.py:Own", train: none}
ways: [3]
shots: [1]
queries: 3
train: {steps: 2, validate_every: 2, validation_episodes: 4}
eval: {episodes: 8, keep_outputs: 4}
"""

OWN = """\
import torch
from metabench.api import Algorithm

class Own(Algorithm):
    reads = "images"

    def adapt(self, support):
        return torch.stack([support.x[support.y == label].mean(dim=0).flatten() for label in range(support.way)])

    def answer(self, means, query):
        return -torch.cdist(query.flatten(1), means)
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, glyphs_cache: Path) -> Path:
    """Return a folder with the images ``pictures/``, the algorithm ``own.py`` and the run ``out``."""
    folder = tmp_path_factory.mktemp("verify")
    levels = np.random.default_rng(0).integers(-25, 26, (10, 5)) + 70 + 12 * np.arange(10)[:, None]  # overlap
    files = {f"{'abcdefghij'[c]}/{i}.png": shade(int(levels[c, i]), 5 * c + i) for c in range(10) for i in range(5)}
    root = write_files(folder / "pictures", files)
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    (folder / "s.yaml").write_text(SUITE.replace("ROOT", str(root)).replace("FOLDER", str(folder)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METABENCH_CACHE", str(glyphs_cache))
        patch.delenv("METABENCH_DATA", raising=False)
        interface.run(folder / "s.yaml", output=folder / "out", device="cpu", workers=False)
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metabench.verification.verifying.start_is_cheap", lambda: False)


@pytest.fixture
def copied(kept: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, which a test may alter."""
    return Path(shutil.copytree(kept / "out", tmp_path / "copy"))


@pytest.fixture
def verified(metabench: Command, copied: Path, in_process: None) -> Callable[..., Ended]:
    """Return the command ``verify`` of the copy, for one algorithm."""
    return lambda algorithm, *options: metabench("verify", str(copied), "--only", f"algorithm={algorithm}", *options)


def cell_of(run: Path, algorithm: str) -> str:
    (cell,) = [record.cell for record in Store(run).records() if record.algorithm == algorithm]
    return cell


def change(path: Path, place: str, new: Callable[[Any], Any]) -> None:
    """Change the value of a JSON file at a path of keys."""
    content = json.loads(path.read_text(encoding="utf-8"))
    *parents, last = place.split(".")
    inner = content
    for key in parents:
        inner = inner[key]
    inner[last] = new(inner[last])
    path.write_text(json.dumps(content), encoding="utf-8")


def change_episode(run: Path, cell: str, by: float) -> None:
    path = run / "cells" / f"{cell}.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["metrics/accuracy"][5] += by if arrays["metrics/accuracy"][5] < 0.5 else -by
    np.savez_compressed(path, **arrays)


def test_an_honest_run_holds_to_the_digit_and_stays_as_it_is(metabench: Command, kept: Path) -> None:
    before = everything_below(kept / "out")
    ended = metabench("verify", str(kept / "out"), "--cells", "all", "--seed", "3")
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.count("holds to the digit") == 3
    assert "leaderboard.md and leaderboard.csv are those of the records" in ended.out
    assert ended.out.rstrip().endswith("3 of 3 verifiable cells tested again (--seed 3)")
    assert everything_below(kept / "out") == before


@pytest.mark.parametrize("place", ["metrics.accuracy.ci95", "metrics.nll.value", "inductive_accuracy.value"])
def test_a_digit_of_the_record_contradicts_the_episodes(
    verified: Callable[..., Ended], copied: Path, place: str
) -> None:
    cell = cell_of(copied, "maml")
    change(copied / "cells" / f"{cell}.json", place, lambda value: value * 0.9)
    ended = verified("maml")
    assert ended.code == 1
    assert f"ALTERED  {cell}" in ended.out
    assert "metrics" in ended.out or "disagree" in ended.out or "inductive" in ended.out


def test_a_digit_of_the_episodes_contradicts_the_record(verified: Callable[..., Ended], copied: Path) -> None:
    change_episode(copied, cell_of(copied, "maml"), 1 / 9)
    ended = verified("maml")
    assert ended.code == 1
    assert "disagree (accuracy" in ended.out


def test_what_agrees_but_is_not_what_the_weights_give_differs(verified: Callable[..., Ended], copied: Path) -> None:
    cell = cell_of(copied, "maml")
    change(copied / "cells" / f"{cell}.json", "temperature.value", lambda value: value + 0.001)
    ended = verified("maml")
    assert ended.code == 1
    assert f"DIFFERS  {cell}: temperature is" in ended.out


@pytest.mark.parametrize("place", ["algorithm", "transductive", "train.seconds", "declarations.nll.better"])
def test_a_changed_setting_differs(verified: Callable[..., Ended], copied: Path, place: str) -> None:
    cell = cell_of(copied, "maml")
    new: dict[str, Any] = {"algorithm": "mine", "transductive": False, "train.seconds": 0.5}
    change(copied / "cells" / f"{cell}.json", place, lambda value: new.get(place, "high"))
    ended = verified(new["algorithm"] if place == "algorithm" else "maml")
    assert ended.code == 1
    assert place.partition(".")[0] in ended.out


def test_settings_of_another_cell_contradict_the_id(verified: Callable[..., Ended], copied: Path) -> None:
    cell = cell_of(copied, "maml")
    change(copied / "cells" / f"{cell}.json", "identity.train.steps", lambda steps: steps + 1)
    ended = verified("maml")
    assert ended.code == 1
    assert f"ALTERED  {cell}: its settings (identity) are not those of its id" in ended.out


@pytest.mark.parametrize("name", ["leaderboard.md", "leaderboard.csv"])
def test_a_digit_of_a_table_contradicts_the_records(verified: Callable[..., Ended], copied: Path, name: str) -> None:
    record = next(record for record in Store(copied).records() if record.algorithm == "own")
    assert record.primary is not None
    number = f"{record.primary.value:.2%}"[:-1] if name.endswith("md") else str(record.primary.value)
    path = copied / name
    text = path.read_text(encoding="utf-8")
    assert number in text
    path.write_text(text.replace(number, number[:-1] + ("1" if number[-1] != "1" else "2")), encoding="utf-8")
    ended = verified("own")
    assert ended.code == 1
    assert f"ALTERED  {name} is not the table of these records, line " in ended.out


def test_other_weights_are_not_tested(verified: Callable[..., Ended], copied: Path) -> None:
    (path,) = [path for path in copied.glob("weights/*.safetensors") if "last" not in path.name][:1]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    ended = verified("maml,protonet", "--cells", "all", "--format", "json")
    assert ended.code == 1
    found = json.loads(ended.out)
    assert sorted(cell["verdict"] for cell in found["cells"]) == ["exact", "other weights"]
    assert not found["passed"]


def test_a_cell_without_its_weights_is_not_verifiable(verified: Callable[..., Ended], copied: Path) -> None:
    shutil.rmtree(copied / "weights")
    ended = verified("maml,own")
    assert ended.code == 0, "the method that trains nothing holds"
    assert "not verifiable" in ended.out
    alone = verified("maml")
    assert alone.code == 1
    assert "FAILED: no cell" in alone.out


def test_other_images_are_other_data(
    verified: Callable[..., Ended], kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    path = kept / "pictures" / "a" / "0.png"
    before = path.read_bytes()
    path.write_bytes(shade(7, 7))
    try:
        ended = verified("own")
    finally:
        path.write_bytes(before)
    assert ended.code == 1
    assert "OTHER DATA" in ended.out
    assert "the images of pictures have the fingerprint" in ended.out


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("-torch.cdist", "torch.cdist", 1, "UNDECIDED"),
        ("import torch\n", "import torch  # as before\n", 0, "holds to the digit"),
    ],
)
def test_other_code_is_named_and_claims_no_more(
    verified: Callable[..., Ended], kept: Path, old: str, new: str, code: int, said: str
) -> None:
    path = kept / "own.py"
    path.write_text(OWN.replace(old, new), encoding="utf-8")
    try:
        ended = verified("own")
    finally:
        path.write_text(OWN, encoding="utf-8")
    assert ended.code == code, ended.out
    assert said in ended.out
    assert "other code of the algorithm: hash" in ended.out


def test_another_machine_and_another_harness_are_named(verified: Callable[..., Ended], copied: Path) -> None:
    path = copied / "cells" / f"{cell_of(copied, 'own')}.json"
    change(path, "environment.torch", lambda version: "1.0")
    change(path, "environment.harness", lambda digest: "0" * 16)
    ended = verified("own")
    assert ended.code == 0, ended.out
    assert "torch: " in ended.out
    assert "1.0 in the record" in ended.out
    assert "other code of the harness: hash" in ended.out


def test_imported_results_are_not_verifiable(
    metabench: Command, tmp_path: Path, make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]
) -> None:
    results = make_results(0.9)
    estimate = estimate_of_mean(results.figures["accuracy"], DataIntervals(results.groups))
    record = make_record(external="theirs.csv", train=None, metrics={"accuracy": estimate.model_dump()})
    Store(tmp_path / "theirs").write(record, results)
    ended = metabench("verify", str(tmp_path / "theirs"), "--format", "json")
    assert ended.code == 1
    (cell,) = json.loads(ended.out)["cells"]
    assert cell["verdict"] == "unverifiable"
    assert "suite.yaml" in cell["reasons"][0] or "theirs.csv" in cell["reasons"][0]


@pytest.mark.parametrize(
    ("arguments", "parts"), [(["nowhere"], ["nowhere"]), ([".", "--cells", "none"], ["--cells none"])]
)
def test_wrong_input_is_refused(metabench: Command, arguments: list[str], parts: list[str]) -> None:
    assert_refused(metabench("verify", *arguments), parts)


@pytest.mark.parametrize("version", ["version_1", "version_2"])
def test_files_of_earlier_versions_agree(version: str) -> None:
    store = Store(Path(__file__).parent.parent / "records" / version)
    records = [record for record in store.records() if record.status == "ok"]
    assert records
    for record in records:
        assert contradictions(store, record, by_name(CLASSIFICATION), hashed=True) == []
