from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from command_line import SUITE, Command, Distributions, assert_refused, essence, everything_below, same
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------------------------ a run


def test_a_run_prints_and_writes_its_leaderboard(metabench: Command) -> None:
    ended = metabench("run", "small.yaml", "--output", "out")
    assert ended.code == 0
    assert "glyphs · 2-way 1-shot · conv4 · 10 test episodes" in ended.out
    assert re.search(r"^ +1 +(protonet|siamese) ", ended.out, re.MULTILINE)
    assert "small: 2 cells" in ended.err
    assert "device: " in ended.err
    assert "expected: about " in ended.err
    assert len(re.findall(r"^done +(?:protonet|siamese) · glyphs", ended.err, re.MULTILINE)) == 2
    out = Path("out")
    assert {path.name for path in out.iterdir()} >= {"suite.yaml", "cells", "leaderboard.md", "leaderboard.csv"}
    assert len(pd.read_csv(out / "leaderboard.csv")) == 2
    assert (out / "leaderboard.md").read_text(encoding="utf-8").startswith("<!-- The leaderboard of this run")
    again = metabench("leaderboard", "out")
    assert again.code == 0
    assert again.out.strip() in ended.out
    assert metabench("leaderboard", "out", "--format", "csv").out == (out / "leaderboard.csv").read_text("utf-8")
    assert len(json.loads(metabench("leaderboard", "out", "--format", "json").out)) == 2


def test_the_suite_of_a_run_is_stored_and_can_be_run_again(metabench: Command) -> None:
    metabench("run", "small.yaml", "--profile", "smoke", "--output", "out", "--only", "algorithm=protonet")
    (first,) = Store(Path("out")).records()
    assert (first.suite, first.profile, first.identity["train"]["steps"]) == ("small", "smoke", 4)
    again = metabench("run", "out/suite.yaml", "--output", "again", "--only", "algorithm=protonet")
    assert again.code == 0, again.err
    (second,) = Store(Path("again")).records()
    assert (second.cell, second.primary) == (first.cell, first.primary)


def test_results_go_to_a_folder_named_after_suite_and_profile(metabench: Command) -> None:
    assert metabench("run", "small.yaml", "--profile", "smoke", "--only", "algorithm=protonet").code == 0
    assert len(Store(Path("runs/small/smoke")).records()) == 1


def test_one_seed_gives_one_result(metabench: Command) -> None:
    for output in ("one", "two"):
        assert metabench("run", "small.yaml", "--output", output).code == 0
    one, two = Store(Path("one")), Store(Path("two"))
    assert essence(one.records()) == essence(two.records())
    for record in one.records():
        assert same(one.episodes(record), two.episodes(record))


def test_another_seed_gives_another_result(metabench: Command) -> None:
    command = ("run", "small.yaml", "--output", "out", "--only", "algorithm=protonet")
    assert metabench(*command, "--seeds", "3,4").code == 0
    one, two = Store(Path("out")).records()
    assert {one.seed, two.seed} == {3, 4}
    assert one.train != two.train
    assert metabench(*command, "--seeds", "5").code == 0
    assert {record.seed for record in Store(Path("out")).records()} == {3, 4, 5}, "seeds add up"


def test_finished_cells_are_kept_and_fresh_runs_them_again(metabench: Command) -> None:
    command = ("run", "small.yaml", "--profile", "smoke", "--output", "out")
    metabench(*command, "--only", "algorithm=protonet")
    both = metabench(*command)
    assert "1 of them finished before" in both.err
    assert "kept    protonet" in both.err
    assert "done    siamese" in both.err
    kept = Store(Path("out")).records()
    assert metabench(*command).err.count("kept ") == 2
    assert Store(Path("out")).records() == kept
    fresh = metabench(*command, "--fresh")
    assert fresh.err.count("done ") == 2
    assert "kept " not in fresh.err
    assert essence(Store(Path("out")).records()) == essence(kept)


def test_changed_settings_do_not_mix_with_earlier_results(metabench: Command) -> None:
    command = ("run", "small.yaml", "--output", "out", "--only", "algorithm=protonet")
    metabench(*command, "--profile", "smoke")
    metabench(*command)
    (record,) = Store(Path("out")).records()
    assert record.identity["train"]["steps"] == 60
    assert len(list(Path("out/superseded").glob("*.json"))) == 1


def test_a_dry_run_shows_the_cells_and_writes_nothing(metabench: Command) -> None:
    before = everything_below(Path())
    ended = metabench("run", "small.yaml", "--dry-run", "--only", "algorithm=siamese", "--seeds", "1,2")
    assert ended.code == 0
    assert ended.out.count("siamese · glyphs · conv4 · 2-way 1-shot · seed ") == 2
    assert ended.out.endswith("2 cells\n")
    assert everything_below(Path()) == before


def test_a_dry_run_leaves_out_excluded_cells(metabench: Command) -> None:
    Path("small.yaml").write_text(f"{SUITE}exclude: [{{algorithm: siamese, seed: 0}}]\n", encoding="utf-8")
    ended = metabench("run", "small.yaml", "--dry-run", "--seeds", "0,1")
    assert re.findall(r"(\w+) · glyphs .* seed (\d)", ended.out) == [
        ("protonet", "0"),
        ("protonet", "1"),
        ("siamese", "1"),
    ]
    assert metabench("run", "small.yaml", "--dry-run", "--seeds", "1").out.endswith("2 cells\n")


def test_a_dry_run_shows_which_cells_share_a_training(metabench: Command) -> None:
    text = SUITE.replace("shots: [1]", "shots: [1, 2]").replace("siamese:\n", "siamese:\n    train: {shot: 2}\n")
    Path("small.yaml").write_text(text, encoding="utf-8")
    lines = metabench("run", "small.yaml", "--dry-run").out.splitlines()
    assert [line.partition("(")[2].rstrip(")") for line in lines] == [
        *3 * ["60 steps of 1 episodes"],
        f"weights of {lines[1].partition(' ')[0]}",
        "",
    ]


def test_validate_counts_the_cells_of_every_profile(metabench: Command) -> None:
    Path("small.yaml").write_text(SUITE + "  all:\n    ways: [2, 3]\n", encoding="utf-8")
    ended = metabench("validate", "small.yaml")
    assert ended.code == 0
    assert re.findall(r"profile (\w+): (\d) cells, valid", ended.out) == [("smoke", "2"), ("all", "4")]


def test_validate_checks_the_suite_without_a_profile_too(metabench: Command) -> None:
    Path("small.yaml").write_text(SUITE.replace("steps: 60", "steps: 60, way: 201"), encoding="utf-8")
    Path("small.yaml").write_text(
        Path("small.yaml").read_text("utf-8").replace("steps: 4}", "steps: 4, way: 2}"), encoding="utf-8"
    )
    ended = metabench("validate", "small.yaml")
    assert ended.code == 2, "`metabench run small.yaml` runs the bare suite, which is wrong"
    assert "201 ways" in ended.err


# ------------------------------------------------------------------------------------------------ skips


@pytest.mark.parametrize("options", [(), ("--workers",), ("--in-process",), ("--jobs", "2")])
def test_a_cell_that_does_not_fit_is_skipped_and_the_others_run(metabench: Command, options: tuple[str, ...]) -> None:
    text = SUITE.replace("siamese:\n    params: {pairs: 8, units: 8}", "maml: {train: {way: 3}}")
    Path("small.yaml").write_text(text, encoding="utf-8")
    command = ("run", "small.yaml", "--profile", "smoke", "--output", "out", *options)
    ended = metabench(*command)
    assert ended.code == 0
    reason = "train.way (3) must be the tested way (2): there is one output per class"
    assert f"skipped maml · glyphs · conv4 · 2-way 1-shot · seed 0: {reason}" in ended.err
    assert "done    protonet" in ended.err
    assert "expected: about " in ended.err
    assert f"maml is skipped: {reason}" in ended.out
    again = metabench(*command)
    assert (again.code, again.err.count("kept    protonet"), again.err.count("skipped maml")) == (0, 1, 1)
    assert "2 of them finished before" in again.err
    (skipped,) = json.loads(metabench("leaderboard", "out", "--only", "status=skipped", "--format", "json").out)
    assert (skipped["algorithm"], skipped["error"]) == ("maml", reason)


# ------------------------------------------------------------------------------------------------- others


def test_help_lists_the_commands(metabench: Command) -> None:
    ended = metabench("--help")
    assert ended.code == 0
    assert [word for word in ("run", "list", "validate", "data", "leaderboard") if word not in ended.out] == []


def test_list_shows_all_names_and_broken_plugins(metabench: Command, distributions: Distributions) -> None:
    distributions.add("broken-one", "import no_such_module_at_all\n")
    ended = metabench("list")
    assert ended.code == 0
    for word in ("protonet", "Snell et al. 2017", "conv4", "glyphs", "quickstart", "broken-one 1.0  BROKEN: "):
        assert word in ended.out
    only = metabench("list", "algorithms")
    assert only.code == 0
    assert "conv4" not in only.out
    assert "metabench list plugins" in only.err
    assert "arxiv.org" in only.out
    assert "arxiv.org" not in ended.out


def test_list_reports_names_claimed_twice(metabench: Command, distributions: Distributions) -> None:
    source = (
        "from metabench.specs import AlgorithmSpec, hookimpl\n@hookimpl\ndef metabench_algorithms():\n"
        '    return [AlgorithmSpec("maml", "pathlib:Path", "")]\n'
    )
    distributions.add("greedy-one", source)
    ended = metabench("list", "algorithms")
    assert ended.code == 0
    assert "the algorithm 'maml' is provided by 'greedy-one' 1.0 and 'metabench'" in ended.err


def test_a_missing_parameter_of_a_dataset_is_named(metabench: Command, distributions: Distributions) -> None:
    source = (
        "from metabench.specs import DatasetSpec, hookimpl\n@hookimpl\ndef metabench_datasets():\n"
        '    return [DatasetSpec("mine", "fake_demanding:Mine", "")]\n'
    )
    distributions.add("demanding-one", source)
    distributions.modules.append("fake_demanding")
    (distributions.folder / "fake_demanding.py").write_text(
        "from metabench.api import Config\nfrom metabench_plugins.datasets.glyphs import Glyphs\n"
        "class Settings(Config):\n    pixels: int\nclass Mine(Glyphs):\n    Config = Settings\n",
        encoding="utf-8",
    )
    assert_refused(metabench("data", "prepare", "mine"), ["mine", "'pixels' is missing"])


def test_the_version_is_printed(metabench: Command) -> None:
    ended = metabench("--version")
    assert ended.code == 0
    assert re.fullmatch(r"metabench, version \d+\.\d+\.\d+\n", ended.out)
