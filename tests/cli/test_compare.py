from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from metabench.analysis.gate import Verdict, changes_of, judge
from metabench.cli import main
from metabench.records.record import EpisodeResults, Record
from metabench.records.runs import Runs
from metabench.records.store import Store

Make = Callable[..., Record]
Write = Callable[..., Runs]

ALGORITHMS = ("maml", "reptile", "protonet", "matchingnet", "siamese")


@pytest.fixture
def write(tmp_path: Path, make_record: Make) -> Write:
    """Return a function that stores a run: one record per algorithm, failed if its accuracies are None."""

    def store(name: str, cells: dict[str, np.ndarray | None], **changes: object) -> Runs:
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        for i, (algorithm, accuracies) in enumerate(cells.items()):
            if accuracies is None:
                Store(folder).write(make_record(None, algorithm=algorithm, cell=f"{name}{i}", **changes))
                continue
            accuracy = {"mean": accuracies.mean(), "ci95": 0.01, "std": 0.1, "episodes": len(accuracies)}
            record = make_record(0.5, algorithm=algorithm, cell=f"{name}{i}", **{"accuracy": accuracy, **changes})
            groups = np.zeros((len(accuracies), 5), dtype=np.int64)
            Store(folder).write(record, EpisodeResults(accuracies, groups))
        return Runs.read([folder])

    return store


def words(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.cell.partition(" ")[0]: verdict.word for verdict in verdicts}


def episodes(mean: float, seed: int, number: int = 600) -> np.ndarray:
    """Return accuracies of 75 queries each; the episodes are shared, and the seed stands for the trained network."""
    difficulty = np.random.default_rng(0).normal(0, 0.05, number)
    generator = np.random.default_rng(seed)
    return generator.binomial(75, np.clip(mean + difficulty, 0, 1)) / 75


# ------------------------------------------------------------------------------------------------ verdicts


def test_each_cell_has_its_verdict(write: Write) -> None:
    flat = episodes(0.8, 1)
    base = {"lost": flat, "won": flat, "kept": flat, "unclear": flat, "gone": flat, "broken": flat, "mended": None}
    wide = np.resize([0.05, -0.05], 600) + 0.004
    candidate = {
        "lost": flat - 0.02 + np.resize([0.01, -0.01], 600),
        "won": flat + 0.02 + np.resize([0.01, -0.01], 600),
        "kept": flat,
        "unclear": flat + wide,
        "broken": None,
        "mended": flat,
        "fresh": flat,
    }
    verdicts = judge(write("base", base), write("candidate", candidate), tolerance=0.005)
    assert words(verdicts) == {
        "lost": "worse",
        "won": "better",
        "kept": "same",
        "unclear": "undecided",
        "gone": "missing",
        "broken": "worse",
        "mended": "better",
        "fresh": "new",
    }
    assert [verdict.breaks for verdict in verdicts] == [True] * 3 + [False] * 5
    (lost,) = [verdict for verdict in verdicts if verdict.cell.startswith("lost")]
    assert lost.reason == "accuracy -2.00 ± 0.08 points on 600 episodes: a loss of more than 0.5 (p < .001)"


@pytest.mark.parametrize(
    "changes",
    [{"dataset_fingerprint": "0" * 64}, {"identity": {"test": {"seed": 1}}}, {"queries": 5}],
)
def test_accuracies_on_other_episodes_are_not_compared(write: Write, changes: dict[str, object]) -> None:
    flat = {"maml": episodes(0.8, 1)}
    (verdict,) = judge(write("base", flat), write("candidate", flat, **changes), 0.005)
    assert verdict.word == "missing"
    assert "test episodes are not those of the base" in verdict.reason


def test_a_run_of_fewer_episodes_is_not_compared(write: Write) -> None:
    base, candidate = {"maml": episodes(0.8, 1)}, {"maml": episodes(0.8, 1, 300)}
    (verdict,) = judge(write("base", base), write("candidate", candidate), 0.005)
    assert verdict.word == "missing"


@pytest.mark.slow
def test_an_unchanged_project_is_called_worse_in_at_most_one_of_twenty_comparisons(write: Write) -> None:
    """A/A: the same algorithms, whose retrained networks differ a little in their true accuracies."""
    alarms = 0
    for repetition in range(200):
        generator = np.random.default_rng(repetition)
        runs = []
        for name in ("base", "candidate"):
            means = 0.8 + generator.normal(0, 0.002, len(ALGORITHMS))
            cells = {a: episodes(m, int(generator.integers(2**32))) for a, m in zip(ALGORITHMS, means, strict=True)}
            runs.append(write(name, cells))
        alarms += any(verdict.breaks for verdict in judge(*runs, tolerance=0.005))
    print(f"A/A: {alarms} of 200")
    assert alarms / 200 <= 0.05


@pytest.mark.slow
def test_a_loss_of_two_points_is_found_in_600_episodes(write: Write) -> None:
    """A/B: one of five algorithms loses two points."""
    detected = 0
    for repetition in range(200):
        base = {a: episodes(0.8, 1000 * repetition + i) for i, a in enumerate(ALGORITHMS)}
        candidate = {a: episodes(0.8, 1000 * repetition + 100 + i) for i, a in enumerate(ALGORITHMS)}
        candidate["maml"] = episodes(0.78, 1000 * repetition + 200)
        detected += words(judge(write("base", base), write("candidate", candidate), tolerance=0.005))["maml"] == "worse"
    print(f"A/B: {detected} of 200")
    assert detected / 200 >= 0.95


# --------------------------------------------------------------------------------------------------- costs


def slower(factor: float) -> dict[str, object]:
    return {
        "eval": {"seconds": 1.0, "episodes_per_second": 100 / factor, "latency_ms": {"p50": 1.5 * factor, "p95": 2.5}}
    }


def test_costs_are_compared_only_between_equal_machines(write: Write) -> None:
    cells = {a: episodes(0.8, 1) for a in ALGORITHMS}
    base = write("base", cells)
    like = changes_of(judge(base, write("candidate", cells, **slower(2)), 0.005), slowdown=1.5, memory_growth=None)
    assert {change.name: round(change.ratio, 3) for change in like} == {
        "test ep/s": 0.5,
        "train ep/s": 1.0,
        "p50 ms": 2.0,
        "peak MiB": 1.0,
    }
    assert {change.name: change.breaks for change in like} == {
        "test ep/s": True,
        "train ep/s": False,
        "p50 ms": True,
        "peak MiB": False,
    }
    unlimited = changes_of(judge(base, write("candidate", cells, **slower(2)), 0.005), None, None)
    assert not any(change.breaks for change in unlimited)
    unlike = judge(base, write("candidate", cells, device="Another", **slower(2)), 0.005)
    assert changes_of(unlike, 1.5, 1.5) == []


# ------------------------------------------------------------------------------------------------- command


@pytest.fixture
def compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str, str]]:
    """Return a function that runs `metabench compare`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["metabench", "compare", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code, *capsys.readouterr())

    return run


Compare = Callable[..., tuple[object, str, str]]


@pytest.fixture
def runs(write: Write) -> None:
    flat = episodes(0.8, 1)
    write("base", {"maml": flat, "protonet": flat})
    write("worse", {"maml": flat, "protonet": flat - 0.02})


@pytest.mark.usefixtures("runs")
def test_the_gate_reports_cell_loss_and_p_value(compare: Compare) -> None:
    code, out, _ = compare("base", "worse")
    assert code == 1
    title = "protonet · glyphs · 5-way 1-shot · conv4 · seed 0"
    assert f"WORSE  {title}: accuracy -2.00 ± 0.00 points on 600 episodes: a loss of more than 0.5 (p < .001)" in out
    assert out.splitlines()[-1] == "FAILED: 1 worse, 1 same"
    code, out, _ = compare("base", "base")
    assert code == 0
    assert out.splitlines()[-1] == "passed: 2 same"
    assert compare("base", "worse", "--tolerance", "3")[0] == 0
    assert compare("base", "worse", "--only", "algorithm=maml")[0] == 0


@pytest.mark.usefixtures("runs")
def test_all_formats_report_the_same_verdicts(compare: Compare) -> None:
    title = "protonet · glyphs · 5-way 1-shot · conv4 · seed 0"
    code, out, _ = compare("base", "worse", "--format", "markdown")
    assert code == 1
    assert out.startswith("**FAILED: 1 worse, 1 same**")
    assert f"- **worse** {title}: accuracy" in out
    code, out, _ = compare("base", "worse", "--format", "json")
    assert code == 1
    report = json.loads(out)
    assert not report["passed"]
    assert [cell["word"] for cell in report["cells"]] == ["worse", "same"]
    code, out, _ = compare("base", "worse", "--format", "junit")
    assert code == 1
    suite = ElementTree.fromstring(out)
    assert suite.attrib["failures"] == "1"
    assert [case.attrib["name"] for case in suite if case.find("failure") is not None] == [title]


@pytest.mark.usefixtures("runs")
def test_the_limits_are_those_of_the_candidates_suite(compare: Compare, tmp_path: Path) -> None:
    Store(tmp_path / "worse").write_suite({"name": "x", "gate": {"tolerance": 3.0}})
    assert compare("base", "worse")[0] == 0
    assert compare("base", "worse", "--tolerance", "1")[0] == 1
    Store(tmp_path / "worse").write_suite({"name": "x", "gate": {"tolerant": 3.0}})
    code, _, err = compare("base", "worse")
    assert code == 2
    assert "gate" in err
    assert "tolerant" in err


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_can_be_compared(compare: Compare, tmp_path: Path, kind: str) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "base")
    assert compare(archive, "worse")[0] == 1
    assert compare(archive, "base")[0] == 0


@pytest.mark.usefixtures("runs")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on, Python always has the filter, and warns without")
def test_an_archive_is_unpacked_safely_without_the_filter_of_tarfile(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("tarfile.data_filter", raising=False)
    assert compare(shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path, "base"), "base")[0] == 0
    with tarfile.open(tmp_path / "outside.tar", "w") as archive:
        archive.add(tmp_path / "base", "../elsewhere")
    code, _, err = compare(str(tmp_path / "outside.tar"), "base")
    assert code == 2
    assert "../elsewhere lies outside the folder" in err
    assert not (tmp_path.parent / "elsewhere").exists()


@pytest.mark.usefixtures("runs")
def test_a_git_revision_can_be_compared(compare: Compare, tmp_path: Path) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q", "-b", "main"), ("add", "base"), (*identity, "commit", "-qm", "base")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    shutil.rmtree(tmp_path / "base")
    assert compare("main:base", "worse")[0] == 1
    code, _, err = compare("main:elsewhere", "worse")
    assert code == 2
    assert "git has no elsewhere in main" in err


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no directory nowhere"),
        ("note.txt", "cannot be unpacked"),
        ("empty.zip", "holds no runs"),
        ("both.zip", "holds 2 runs"),
    ],
)
def test_a_source_without_a_single_run_is_refused(compare: Compare, tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "note.txt").write_text("no run")
    (tmp_path / "nothing").mkdir()
    shutil.make_archive(str(tmp_path / "empty"), "zip", tmp_path, "nothing")
    (tmp_path / "two").mkdir()
    for name in ("base", "worse"):
        shutil.copytree(tmp_path / name, tmp_path / "two" / name)
    shutil.make_archive(str(tmp_path / "both"), "zip", tmp_path, "two")
    code, out, err = compare(source, "worse")
    assert code == 2
    assert out == ""
    assert message in err


def test_a_project_gates_its_algorithm_in_its_own_tests(
    write: Write, tmp_path: Path, assert_no_regression: Callable[..., None]
) -> None:
    flat = episodes(0.8, 1)
    write("base", {"maml": flat})
    write("worse", {"maml": flat - 0.02})
    assert_no_regression(tmp_path / "base", tmp_path / "base")
    assert_no_regression(tmp_path / "base", tmp_path / "worse", tolerance=3)
    with pytest.raises(pytest.fail.Exception, match=r"^worse  maml · glyphs .*: accuracy -2\.00 ± 0\.00 points on 600"):
        assert_no_regression(tmp_path / "base", tmp_path / "worse")
