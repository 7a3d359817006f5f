from __future__ import annotations

import hashlib
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

from metabench.analysis.bootstrap import pooled_difference
from metabench.analysis.estimates import estimates
from metabench.analysis.gate import Verdict, changes_of, compare_runs, judge
from metabench.analysis.metrics import CLASSIFICATION, by_name
from metabench.cli import main
from metabench.errors import UsageError
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
        for algorithm, accuracies in cells.items():
            cell = hashlib.sha256(f"{name} {algorithm}".encode()).hexdigest()[:16]
            if accuracies is None:
                Store(folder).write(make_record(None, algorithm=algorithm, cell=cell, **changes))
                continue
            mean = accuracies[np.isfinite(accuracies)].mean()
            accuracy = {"mean": mean, "ci95": 0.01, "std": 0.1, "episodes": len(accuracies)}
            record = make_record(0.5, algorithm=algorithm, cell=cell, **{"accuracy": accuracy, **changes})
            groups = np.zeros((len(accuracies), 5), dtype=np.int64)
            Store(folder).write(record, EpisodeResults({"accuracy": accuracies}, groups))
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
    flat = episodes(0.6, 1)
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


SKIPPED = {"status": "skipped", "error": "one output per class"}


@pytest.mark.parametrize(
    ("base", "candidate", "word", "breaks"),
    [
        (SKIPPED, SKIPPED, "skipped", False),
        (SKIPPED, {}, "new", False),
        (SKIPPED, {"status": "failed"}, "new", False),
        (SKIPPED, None, "skipped", False),
        (None, SKIPPED, "skipped", False),
        ({"status": "failed"}, SKIPPED, "skipped", False),
        ({}, SKIPPED, "missing", True),
    ],
)
def test_a_skipped_cell_breaks_only_where_the_base_has_an_accuracy(
    write: Write, base: dict[str, object] | None, candidate: dict[str, object] | None, word: str, breaks: bool
) -> None:
    def run(name: str, changes: dict[str, object] | None) -> Runs:
        """Return a run whose cell of maml has these changes; without such a cell for None."""
        accuracies = None if changes else episodes(0.8, 1)
        return write(name, {"other" if changes is None else "maml": accuracies}, **(changes or {}))

    verdicts = judge(run("base", base), run("candidate", candidate), 0.005)
    (verdict,) = [verdict for verdict in verdicts if verdict.cell.startswith("maml")]
    assert (verdict.word, verdict.breaks) == (word, breaks)
    assert "skips this cell: one output per class" in verdict.reason


@pytest.mark.parametrize(
    "changes",
    [{"dataset_fingerprint": "0" * 64}, {"identity": {"test": {"seed": 1}}}, {"queries": 5}],
)
def test_accuracies_on_other_episodes_are_not_compared(write: Write, changes: dict[str, object]) -> None:
    flat = {"maml": episodes(0.8, 1)}
    (verdict,) = judge(write("base", flat), write("candidate", flat, **changes), 0.005)
    assert verdict.word == "missing"
    assert "test episodes are not those of the base" in verdict.reason


def test_a_run_of_fewer_episodes_is_compared_on_the_first(write: Write) -> None:
    flat = episodes(0.8, 1)
    (verdict,) = judge(write("base", {"maml": flat}), write("candidate", {"maml": flat[:300]}), 0.005)
    assert (verdict.word, verdict.difference and verdict.difference.episodes) == ("same", 300)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("broken", ["base", "candidate"])
def test_an_accuracy_that_is_no_number_fails_its_cell(write: Write, value: float, broken: str) -> None:
    good, odd = episodes(0.8, 1), np.zeros(600)
    odd[0] = value
    cells = {run: {"maml": odd if run == broken else good, "kept": good} for run in ("base", "candidate")}
    verdicts = judge(*(write(run, cells[run]) for run in cells), tolerance=0.005)
    assert words(verdicts) == {"maml": "invalid", "kept": "same"}
    assert verdicts[0].breaks
    assert f"/{broken}/cells/" in verdicts[0].reason
    assert "accuracy of an episode is not between 0 and 1" in verdicts[0].reason


@pytest.mark.parametrize("tolerance", [np.nan, np.inf, -0.001, 1.001])
def test_a_tolerance_that_is_no_fraction_is_refused(write: Write, tolerance: float) -> None:
    run = write("base", {"maml": episodes(0.8, 1)})
    with pytest.raises(UsageError, match="give a number between 0 and 100"):
        judge(run, run, tolerance)


def test_two_runs_without_a_compared_cell_do_not_pass(write: Write) -> None:
    flat = episodes(0.8, 1)
    failed = write("failed", {"maml": None, "protonet": None})
    nothing = compare_runs(failed, failed, 0.005)
    assert (nothing.passed, nothing.is_empty) == (False, True)
    half = compare_runs(write("base", {"maml": None, "one": flat}), write("same", {"maml": None, "one": flat}), 0.005)
    assert (half.passed, words(list(half.verdicts))) == (True, {"maml": "undecided", "one": "same"})
    assert compare_runs(failed, write("mended", {"maml": flat, "protonet": flat}), 0.005).passed


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


# --------------------------------------------------------------------------------------- further metrics

MEASURES = by_name(CLASSIFICATION)


@pytest.fixture
def write_metrics(tmp_path: Path, make_record: Make) -> Callable[..., Runs]:
    """Return a function that stores a run of one cell with further metrics of given figures."""

    def store(name: str, figures: dict[str, np.ndarray], **changes: object) -> Runs:
        folder = tmp_path / name
        figures = {"accuracy": episodes(0.8, 1), **figures}
        groups = np.zeros((600, 5), dtype=np.int64)
        metrics = estimates(figures, groups, CLASSIFICATION)
        declarations = {measure.name: measure.declaration for measure in CLASSIFICATION}
        record = make_record(0.8, algorithm="maml", metrics=metrics, declarations=declarations, **changes)
        Store(folder).write(record, EpisodeResults(figures, groups))
        return Runs.read([folder])

    return store


def nll(mean: float) -> np.ndarray:
    return mean + np.random.default_rng(3).exponential(0.1, 600)


def ece(gap: float) -> np.ndarray:
    """Return the figures of a method whose confidence is too high by a gap in each of two bins."""
    figures = np.random.default_rng(4).normal(0, 0.02, (600, 15)) * (np.arange(15) > 12)
    return figures - gap / 2 * (np.arange(15) > 12)


def test_each_metric_with_a_tolerance_has_its_verdict(write_metrics: Callable[..., Runs]) -> None:
    base = write_metrics("base", {"nll": nll(0.5), "ece": ece(0.05), "brier": nll(0.2)})
    candidate = write_metrics("candidate", {"nll": nll(0.6), "ece": ece(0.01), "brier": nll(0.2)})
    limits = {"nll": 0.05, "ece": 0.02, "brier": 0.01}
    verdicts = {verdict.cell.rpartition(" · ")[2]: verdict for verdict in judge(base, candidate, 0.005, limits)}
    found = {name: verdict.word for name, verdict in verdicts.items()}
    assert found == {"seed 0": "same", "nll": "worse", "ece": "better", "brier": "same"}
    assert verdicts["nll"].reason == "NLL +0.1000 ± 0.0000 on 600 episodes: a loss of more than 0.05 (p < .001)"
    assert verdicts["ece"].reason.startswith("ECE -4.00 ± ")
    within = judge(base, candidate, 0.005, {"nll": 0.2})
    assert [verdict.word for verdict in within] == ["same", "same"]
    comparison = compare_runs(base, candidate, 0.005, tolerances=limits)
    assert {change.cells for change in comparison.changes} == {1}, "costs are compared once a cell"


def test_the_paired_bootstrap_compares_pooled_metrics(write_metrics: Callable[..., Runs]) -> None:
    """Episodes in common are no difference; the interval is that of independent noise."""
    one, other = ece(0.05), ece(0.05) + np.random.default_rng(9).normal(0, 0.01, (600, 15)) * (np.arange(15) > 12)
    interval = pooled_difference(MEASURES["ece"].metric, one, other)
    assert interval.ci95 == pytest.approx(1.96 * 0.01 * (2 / 600) ** 0.5, rel=0.15)
    assert abs(interval.mean) < 2 * interval.ci95
    assert pooled_difference(MEASURES["ece"].metric, one, one).ci95 == pytest.approx(0, abs=1e-12)
    assert pooled_difference(MEASURES["ece"].metric, one, other[:100]).episodes == 100


def test_a_metric_that_the_candidate_lacks_is_missing(write_metrics: Callable[..., Runs]) -> None:
    with_it, without = write_metrics("with", {"nll": nll(0.5)}), write_metrics("without", {})
    gone = judge(with_it, without, 0.005, {"nll": 0.05})
    assert [verdict.word for verdict in gone] == ["missing", "same"]
    assert gone[0].reason == "the candidate has no NLL of this cell (its remarks say why)"
    comparison = compare_runs(without, with_it, 0.005, tolerances={"nll": 0.05})
    assert [verdict.word for verdict in comparison.verdicts] == ["same"]
    assert comparison.notes == ["nll was not judged in 1 of 1 cells: the base does not have it"]


def test_an_unknown_metric_in_the_gate_is_refused(write_metrics: Callable[..., Runs]) -> None:
    base = write_metrics("base", {})
    with pytest.raises(UsageError, match=r"no record has the metric 'nlll' \(did you mean 'nll'\?\)"):
        judge(base, base, 0.005, {"nlll": 0.05})


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


def test_costs_that_were_not_compared_are_named(write: Write) -> None:
    cells = {a: episodes(0.8, 1) for a in ALGORITHMS}
    base, other = write("base", cells), write("other", cells, device="Another, 1 thread")
    (note,) = compare_runs(base, other, 0.005, slowdown=1.5).notes
    assert note == (
        "costs were not compared in 5 of 5 cells: the base ran on A processor, 2 threads, torch None; the candidate on "
        "Another, 1 thread, torch None"
    )
    assert compare_runs(base, base, 0.005, slowdown=1.5).notes == []


@pytest.mark.parametrize("rate", [None, 0.0])
def test_a_cost_that_is_no_positive_number_is_not_compared(write: Write, rate: float | None) -> None:
    cells = {a: episodes(0.8, 1) for a in ALGORITHMS}
    metrics = {"eval": {"seconds": 1.0, "episodes_per_second": rate, "latency_ms": {"p50": 1.5, "p95": 2.5}}}
    comparison = compare_runs(write("base", cells), write("odd", cells, **metrics), 0.005, slowdown=1.5)
    assert comparison.notes == ["test ep/s was not compared in 5 of 5 cells: a run has no positive value"]
    assert "test ep/s" not in [change.name for change in comparison.changes]


def test_a_limit_within_the_interval_of_a_cost_is_undecided(write: Write) -> None:
    flat = episodes(0.8, 1)
    one = changes_of(judge(write("base", {"maml": flat}), write("slow", {"maml": flat}, **slower(9)), 0.005), 1.5, None)
    assert {change.name: change.is_undecided for change in one if change.limit} == {
        "test ep/s": True,
        "train ep/s": True,
        "p50 ms": True,
    }
    assert not any(change.breaks for change in one)
    assert str(one[0]) == "test ep/s: ×0.11 (1 cell): undecided, the limit of 1.5 needs more than one cell"


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
def test_the_limits_are_those_of_the_bases_suite(compare: Compare, tmp_path: Path) -> None:
    defaults = "limits: tolerance 0.5 points, slowdown without limit, memory growth without limit"
    assert f"{defaults} (the defaults, because the base stores no limits)\n" in compare("base", "worse")[1]
    Store(tmp_path / "worse").write_suite({"name": "x", "gate": {"tolerance": 3.0}})
    code, out, _ = compare("base", "worse")
    assert code == 1
    assert "the candidate's suite has other limits, which do not count: tolerance 3 points" in out
    Store(tmp_path / "base").write_suite({"name": "x", "gate": {"tolerance": 3.0, "slowdown": 2.0}})
    code, out, _ = compare("base", "worse")
    assert code == 0
    assert "limits: tolerance 3 points, slowdown ×2, memory growth without limit (the base's suite)\n" in out
    code, out, _ = compare("base", "worse", "--tolerance", "1")
    assert code == 1
    assert "limits: tolerance 1 points, slowdown ×2, memory growth without limit (--tolerance, the base's suite)" in out


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("run", ["base", "worse"])
@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("name: x\ngate: {tolerant: 3.0}\n", "suite.yaml:2: gate.tolerant: unknown key 'tolerant'"),
        ("name: x\ngate: {tolerance: .nan}\n", "suite.yaml:2: gate.tolerance: input should be"),
        ("name: x\ngate: {tolerance: -1.0}\n", "suite.yaml:2: gate.tolerance: input should be"),
        ("name: x\ngate: {slowdown: .inf}\n", "suite.yaml:2: gate.slowdown: input should be a finite number"),
        ("name: x\ngate: {slowdown: 1.0e+300}\n", "suite.yaml:2: gate.slowdown: input should be"),
        ("name: x\ngate: {memory_growth: .5}\n", "suite.yaml:2: gate.memory_growth: input should be"),
        ("name: x\ngate:\n", "suite.yaml:2: gate: input should be a valid dictionary"),
        ("gate: [\n", "suite.yaml:2: not valid YAML"),
        ("- gate\n", "suite.yaml:1: a suite is a mapping"),
        ("", "suite.yaml:1: a suite is a mapping"),
    ],
)
def test_damaged_limits_are_no_defaults(compare: Compare, tmp_path: Path, run: str, suite: str, message: str) -> None:
    (tmp_path / run / "suite.yaml").write_text(suite, encoding="utf-8")
    code, out, err = compare("base", "worse")
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("option", ["--tolerance", "--slowdown", "--memory-growth"])
@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf", "-1", "1e300"])
def test_a_limit_that_is_no_number_in_range_is_refused(compare: Compare, option: str, value: str) -> None:
    code, out, err = compare("base", "worse", option, value)
    assert (code, out) == (2, "")
    assert f"Invalid value for '{option}'" in err


def test_cells_without_a_verdict_on_accuracy_are_explained(write: Write, compare: Compare) -> None:
    flat = episodes(0.6, 1)
    wide = flat + np.resize([0.05, -0.05], 600) + 0.004
    write("base", {"unclear": flat, "broken": None, "kept": flat})
    write("candidate", {"unclear": wide, "broken": None, "kept": flat, "fresh": None})
    code, out, _ = compare("base", "candidate")
    assert code == 0
    assert "UNDECIDED  broken · glyphs · 5-way 1-shot · conv4 · seed 0: the cell failed in both runs" in out
    assert "UNDECIDED  unclear · glyphs · 5-way 1-shot · conv4 · seed 0: accuracy +0.40" in out
    assert "NEW  fresh · glyphs · 5-way 1-shot · conv4 · seed 0: the base does not have this cell, and it failed" in out
    assert "kept" not in out.split("\n\n")[1]


def test_nothing_compared_fails_in_all_formats(write: Write, compare: Compare) -> None:
    write("base", {"maml": None})
    code, out, _ = compare("base", "base")
    assert code == 1
    assert out.splitlines()[-1] == "FAILED: 1 undecided; no cell was compared"
    assert compare("base", "base", "--format", "markdown")[1].startswith(
        "**FAILED: 1 undecided; no cell was compared**"
    )
    assert not json.loads(compare("base", "base", "--format", "json")[1])["passed"]
    assert ElementTree.fromstring(compare("base", "base", "--format", "junit")[1]).attrib["failures"] == "1"


def test_json_has_no_constants_that_json_lacks(write: Write, compare: Compare) -> None:
    flat = {"maml": episodes(0.8, 1)}
    write("base", flat)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    report = json.loads(compare("base", "base", "--format", "json")[1], parse_constant=refuse)
    assert report["changes"][0]["high"] is None, "one cell has no interval"


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
    code, _, err = compare("other:base", "worse")
    assert code == 2
    assert "git has no revision 'other': fatal: " in err


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("source", ["--output=precious:base", "-oprecious:base", "--remote=x:base", "-:base", ":base"])
def test_a_revision_is_no_option_of_git(compare: Compare, tmp_path: Path, source: str) -> None:
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=tmp_path, check=True)
    (tmp_path / "precious").write_text("kept", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = compare("--", source, "worse")
    assert (code, out) == (2, "")
    assert "revision" in err
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "kept"
    assert sorted(tmp_path.rglob("*")) == before


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
    write("failed", {"maml": None})
    with pytest.raises(pytest.fail.Exception, match=r"^undecided  maml · glyphs .*: the cell failed in both runs"):
        assert_no_regression(tmp_path / "failed", tmp_path / "failed")
    with pytest.raises(UsageError):
        assert_no_regression(tmp_path / "base", tmp_path / "worse", tolerance=float("nan"))
