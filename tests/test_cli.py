from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pytest
import torch

from metabench.cli import main
from metabench.record import EpisodeResults, Record
from metabench.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = """\
name: small
datasets:
  glyphs: {}
backbones:
  conv4: {params: {channels: 2, downsample: stride}}
algorithms:
  protonet: {}
  siamese:
    params: {pairs: 8, units: 8}
ways: [2]
shots: [1]
queries: 2
train: {steps: 60, validate_every: 20, validation_episodes: 3}
eval: {episodes: 10}
profiles:
  smoke:
    train: {steps: 4}
"""


class Distributions(Protocol):
    folder: Path
    modules: list[str]

    def add(self, name: str, source: str, entry: str | None = None) -> str: ...


@dataclass
class Ended:
    """How a command ended."""

    code: object
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def metabench(
    tmp_path: Path, glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Return a function that runs a command line in an empty folder that holds `small.yaml` alone."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "small.yaml").write_text(SUITE, encoding="utf-8")
    monkeypatch.chdir(work)
    monkeypatch.setenv("METABENCH_CACHE", str(glyphs_cache))
    monkeypatch.delenv("METABENCH_DATA", raising=False)
    monkeypatch.delenv("METABENCH_PLUGINS", raising=False)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["metabench", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return Ended(end.value.code, printed.out, printed.err)

    return run


def everything_below(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def essence(records: list[Record]) -> list[dict[str, Any]]:
    """Return what the clock and the memory have no say in."""
    found = []
    for record in records:
        data = record.model_dump()
        for name in ("eval", "peak_memory_bytes", "finished", "environment"):
            del data[name]
        if data["train"]:
            del data["train"]["seconds"], data["train"]["episodes_per_second"]
        found.append(data)
    return found


def same(one: EpisodeResults, other: EpisodeResults) -> bool:
    """Return whether two results are the same, bit for bit."""
    pairs = ((one.accuracies, other.accuracies), (one.groups, other.groups))
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


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
    assert (out / "leaderboard.md").read_text(encoding="utf-8").startswith("### ")
    again = metabench("leaderboard", "out")
    assert again.code == 0
    assert again.out.strip() in ended.out
    assert metabench("leaderboard", "out", "--format", "csv").out == (out / "leaderboard.csv").read_text("utf-8")
    assert len(json.loads(metabench("leaderboard", "out", "--format", "json").out)) == 2


def test_what_was_run_is_stored_and_can_be_run_again(metabench: Command) -> None:
    metabench("run", "small.yaml", "--profile", "smoke", "--output", "out", "--only", "algorithm=protonet")
    (first,) = Store(Path("out")).records()
    assert (first.suite, first.profile, first.identity["train"]["steps"]) == ("small", "smoke", 4)
    again = metabench("run", "out/suite.yaml", "--output", "again", "--only", "algorithm=protonet")
    assert again.code == 0, again.err
    (second,) = Store(Path("again")).records()
    assert (second.cell, second.accuracy) == (first.cell, first.accuracy)


def test_results_go_to_a_folder_named_after_suite_and_profile(metabench: Command) -> None:
    assert metabench("run", "small.yaml", "--profile", "smoke", "--only", "algorithm=protonet").code == 0
    assert len(Store(Path("runs/small/smoke")).records()) == 1


def test_one_seed_gives_one_result(metabench: Command) -> None:
    for output in ("one", "two"):
        assert metabench("run", "small.yaml", "--output", output).code == 0
    one, two = Store(Path("one")), Store(Path("two"))
    assert essence(one.records()) == essence(two.records())
    for record in one.records():
        assert same(one.episodes(record.cell), two.episodes(record.cell))


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


# -------------------------------------------------------------------------------------------- wrong input

WRONG_SUITES = [
    ("  protonet:", "  protonte:", ["small.yaml:7: ", "'protonte'", "did you mean 'protonet'?"]),
    ("  glyphs:", "  glyfs:", ["small.yaml:3: ", "'glyfs'", "did you mean 'glyphs'?"]),
    ("steps: 60", "stepz: 60", ["small.yaml:13: ", "'stepz'", "did you mean 'steps'?"]),
    ("pairs: 8", "pears: 8", ["small.yaml:9: ", "'pears'", "did you mean 'pairs'?"]),
    ("queries: 2", "queries: 29", ["small.yaml:11: ", "30 images", "1 shots + 29 queries", "glyphs", "has 20"]),
    ("ways: [2]", "ways: [1]", ["small.yaml:10: ", "at least 2"]),
    ("ways: [2]", "ways: [2", ["small.yaml:1", "not valid YAML"]),
    ("profiles:\n  smoke:\n    train: {steps: 4}\n", "profiles: 3\n", ["small.yaml:15: ", "a mapping of names"]),
]

WRONG_COMMANDS = [
    (["run", "smal.yaml"], ["there is no suite file smal.yaml", "quickstart"]),
    (["run", "quikstart"], ["no suite 'quikstart'", "did you mean 'quickstart'?"]),
    (["run", "."], ["."]),
    (["run", "../work"], ["is a directory"]),
    (["run", "small.yaml", "--profile", "smok"], ["no profile 'smok'", "did you mean 'smoke'?"]),
    (["run", "small.yaml", "--device", "gpu"], ["--device", "gpu"]),
    (["run", "small.yaml", "--only", "maml"], ["--only maml", "KEY=VALUE"]),
    (["run", "small.yaml", "--only", "algorithm="], ["--only algorithm=", "KEY=VALUE"]),
    (["run", "small.yaml", "--only", "algorithm=protonte"], ["algorithm=protonte", "did you mean 'protonet'?"]),
    (["run", "small.yaml", "--only", "algorith=protonet"], ["algorith=", "did you mean 'algorithm'?"]),
    (["run", "small.yaml", "--only", "shot=5"], ["shot=5", "It has: 1"]),
    (["run", "small.yaml", "--seeds", "a"], ["--seeds a", "whole numbers"]),
    (["run", "small.yaml", "--seeds", ""], ["--seeds", "whole numbers"]),
    (["run", "small.yaml", "--seeds", "1,1"], ["--seeds 1,1", "different"]),
    (["run", "small.yaml", "--seeds", "-1"], ["--seeds -1"]),
    (["run", "small.yaml", "--nonsense"], ["--nonsense"]),
    (["run"], ["SUITE"]),
    (["ruin"], ["ruin"]),
    (["list", "nonsense"], ["nonsense"]),
    (["validate", "smal.yaml"], ["smal.yaml"]),
    (["leaderboard", "nowhere"], ["no directory nowhere", "--output"]),
    (["leaderboard", "."], ["no finished cells in ."]),
    (["leaderboard", ".", "--format", "nonsense"], ["nonsense"]),
    (["data", "prepare", "glyfs"], ["no dataset 'glyfs'", "did you mean 'glyphs'?"]),
]


def assert_refused(ended: Ended, parts: list[str]) -> None:
    assert ended.code == 2
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert [part for part in parts if part not in ended.err] == []


@pytest.mark.parametrize(("old", "new", "parts"), WRONG_SUITES)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_wrong_suite_is_one_message_and_writes_nothing(
    metabench: Command, command: str, old: str, new: str, parts: list[str]
) -> None:
    assert old in SUITE
    Path("small.yaml").write_text(SUITE.replace(old, new, 1), encoding="utf-8")
    before = everything_below(Path())
    ended = metabench(command, "small.yaml")
    assert_refused(ended, parts)
    assert ended.err.startswith("metabench: small.yaml:")
    assert len(ended.err.splitlines()) == 1
    assert everything_below(Path()) == before


@pytest.mark.parametrize(("arguments", "parts"), WRONG_COMMANDS, ids=lambda value: " ".join(value)[:40])
def test_a_wrong_command_is_explained_and_writes_nothing(
    metabench: Command, arguments: list[str], parts: list[str]
) -> None:
    before = everything_below(Path())
    assert_refused(metabench(*arguments), parts)
    assert everything_below(Path()) == before


def test_a_device_that_is_not_there_is_refused(metabench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = everything_below(Path())
    assert_refused(metabench("run", "small.yaml", "--device", "cuda"), ["--device cuda", "--device cpu"])
    assert everything_below(Path()) == before


def test_wrong_plugins_are_refused(metabench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METABENCH_PLUGINS", "metabenhc")
    assert_refused(metabench("run", "small.yaml"), ["METABENCH_PLUGINS", "did you mean 'metabench'?"])


def test_a_damaged_record_is_named_and_fresh_goes_past_it(metabench: Command) -> None:
    command = ("run", "small.yaml", "--profile", "smoke", "--output", "out", "--only", "algorithm=protonet")
    metabench(*command)
    (path,) = Path("out/cells").glob("*.json")
    path.write_text("{", encoding="utf-8")
    assert_refused(metabench(*command), [str(path), "is damaged"])
    assert_refused(metabench("leaderboard", "out"), [str(path), "is damaged"])
    assert metabench(*command, "--fresh").code == 0


def test_an_output_in_use_is_left_alone(metabench: Command) -> None:
    with Store(Path("out")).locked():
        before = everything_below(Path())
        assert_refused(metabench("run", "small.yaml", "--output", "out"), ["another metabench run", "--output"])
        assert everything_below(Path()) == before


# --------------------------------------------------------------------------------------------- interrupted

TRIPWIRE = """
    import os

    from metabench_plugins.algorithms.protonet import ProtoNet


    class Tripwire(ProtoNet):
        count = 0

        def meta_step(self, episodes):
            metrics = super().meta_step(episodes)
            self.count += 1
            if self.count == int(os.environ.get("TRIP_AT", "-1")):
                if os.environ["TRIP_WITH"] == "raise":
                    raise RuntimeError("tripped over the wire")
                os.kill(os.getpid(), int(os.environ["TRIP_WITH"]))
            return metrics
    """

TRIPPING = SUITE[: SUITE.index("  siamese")] + "  tripwire: {}\n" + SUITE[SUITE.index("ways") : SUITE.index("profiles")]


@pytest.fixture
def tripwire(distributions: Distributions, metabench: Command) -> Command:
    """Return `metabench`, with a suite whose second algorithm does to the process what TRIP_AT and TRIP_WITH say."""
    source = (
        "from metabench.specs import AlgorithmSpec, hookimpl\n@hookimpl\ndef metabench_algorithms():\n"
        '    return [AlgorithmSpec("tripwire", "fake_tripwire:Tripwire", "")]\n'
    )
    distributions.add("trip-plugin", source)
    distributions.modules.append("fake_tripwire")
    (distributions.folder / "fake_tripwire.py").write_text(textwrap.dedent(TRIPWIRE), encoding="utf-8")
    Path("small.yaml").write_text(TRIPPING, encoding="utf-8")
    return metabench


def in_a_process(folder: Path, step: int, how: int) -> Ended:
    """Run the suite in a process of its own, which is hit by a signal after some steps of its second cell."""
    script = (
        "import metabench.engine as engine; engine.CHECKPOINT_SECONDS = 0\n"
        "import torch; torch.set_num_threads(1)\n"
        "from metabench.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder), "TRIP_AT": str(step), "TRIP_WITH": str(int(how))}
    command = [sys.executable, "-c", script, "run", "small.yaml", "--output", "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["interrupted", "killed"])
def test_a_run_that_was_stopped_keeps_what_is_finished_and_ends_as_if_undisturbed(
    tripwire: Command, distributions: Distributions, how: signal.Signals, code: int
) -> None:
    stopped = in_a_process(distributions.folder, 35, how)
    assert stopped.code == code, stopped.err
    assert "Traceback" not in stopped.err
    store = Store(Path("out"))
    assert [record.algorithm for record in store.records()] == ["protonet"]
    assert len(list(Path("out/checkpoints").iterdir())) == 1
    if how != signal.SIGKILL:
        assert "run the same command again" in stopped.err
        assert not list(Path("out").rglob("*.tmp"))
    again = tripwire("run", "small.yaml", "--output", "out")
    assert again.code == 0
    assert "kept    protonet" in again.err
    assert "done    tripwire" in again.err
    assert tripwire("run", "small.yaml", "--output", "undisturbed").code == 0
    undisturbed = Store(Path("undisturbed"))
    assert essence(store.records()) == essence(undisturbed.records())
    for record in undisturbed.records():
        assert same(store.episodes(record.cell), undisturbed.episodes(record.cell))
    assert not list(Path("out/checkpoints").iterdir())


def test_being_told_to_terminate_keeps_what_is_finished_too(tripwire: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIP_AT", "5")
    monkeypatch.setenv("TRIP_WITH", str(int(signal.SIGTERM)))
    ended = tripwire("run", "small.yaml", "--output", "out")
    assert ended.code == 130
    assert "Stopped. Everything finished is in out; run the same command again to go on." in ended.err
    assert [record.algorithm for record in Store(Path("out")).records()] == ["protonet"]
    assert len(list(Path("out/checkpoints").iterdir())) == 1


def test_a_failed_cell_makes_the_exit_code_1_and_is_tried_again(
    tripwire: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIP_AT", "5")
    monkeypatch.setenv("TRIP_WITH", "raise")
    failed = tripwire("run", "small.yaml", "--output", "out")
    assert failed.code == 1
    assert re.search(r"^FAILED  tripwire .*RuntimeError: tripped over the wire \(see cells/", failed.err, re.MULTILINE)
    assert "Traceback" not in failed.err
    assert "tripwire failed: RuntimeError: tripped over the wire" in failed.out
    assert tripwire("leaderboard", "out").code == 0
    rows = pd.read_csv(io.StringIO(tripwire("leaderboard", "out", "--format", "csv").out))
    assert list(rows["status"]) == ["ok", "failed"]
    monkeypatch.delenv("TRIP_AT")
    assert tripwire("run", "small.yaml", "--output", "out").code == 0
    assert {record.status for record in Store(Path("out")).records()} == {"ok"}
    assert not list(Path("out/cells").glob("*.traceback.txt")), "the failure is history"


def test_listeners_hear_of_a_whole_run(metabench: Command, distributions: Distributions) -> None:
    source = (
        "from metabench.specs import hookimpl\nheard = []\n"
        "@hookimpl\ndef metabench_run_started(output, suite, cells): heard.append((suite['name'], cells))\n"
        "@hookimpl\ndef metabench_cell_finished(record):\n"
        "    heard.append(record['algorithm'])\n    raise RuntimeError('no network')\n"
        "@hookimpl\ndef metabench_run_finished(records): heard.append(len(records))\n"
    )
    module = distributions.add("listening-one", source)
    ended = metabench("run", "small.yaml", "--profile", "smoke", "--output", "out")
    assert ended.code == 0
    assert sys.modules[module].heard == [("small", 2), "protonet", "siamese", 2]


# ------------------------------------------------------------------------------------------------- others


def test_help_lists_the_commands(metabench: Command) -> None:
    ended = metabench("--help")
    assert ended.code == 0
    assert [word for word in ("run", "list", "validate", "data", "leaderboard") if word not in ended.out] == []


def test_list_shows_everything_and_what_is_broken(metabench: Command, distributions: Distributions) -> None:
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


def test_list_says_which_names_are_claimed_twice(metabench: Command, distributions: Distributions) -> None:
    source = (
        "from metabench.specs import AlgorithmSpec, hookimpl\n@hookimpl\ndef metabench_algorithms():\n"
        '    return [AlgorithmSpec("maml", "pathlib:Path", "")]\n'
    )
    distributions.add("greedy-one", source)
    ended = metabench("list", "algorithms")
    assert ended.code == 0
    assert "the algorithm 'maml' is provided by 'greedy-one' 1.0 and 'metabench'" in ended.err


def test_a_dataset_that_needs_parameters_says_which(metabench: Command, distributions: Distributions) -> None:
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


def test_the_version_is_told(metabench: Command) -> None:
    ended = metabench("--version")
    assert ended.code == 0
    assert re.fullmatch(r"metabench, version \d+\.\d+\.\d+\n", ended.out)
