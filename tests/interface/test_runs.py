"""Runs from Python: running, reading and comparing them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metabench
from metabench.errors import MetabenchError, SuiteError, UsageError
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE: dict[str, Any] = {
    "name": "small",
    "datasets": {"glyphs": {}},
    "backbones": {"conv4": {"params": {"channels": 2, "downsample": "stride"}}},
    "algorithms": {"protonet": {}, "siamese": {"params": {"pairs": 8, "units": 8}}},
    "ways": [2],
    "shots": [1, 2],
    "queries": 2,
    "train": {"steps": 2, "validate_every": 2, "validation_episodes": 3},
    "eval": {"episodes": 10},
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METABENCH_CACHE", str(glyphs_cache))
    for name in ("METABENCH_DATA", "METABENCH_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


def run_small(**options: Any) -> metabench.Run:
    return metabench.run(SUITE, **{"device": "cpu", "workers": False, **options})


def test_a_suite_of_python_runs_as_that_of_a_file_does(capfd: pytest.CaptureFixture[str]) -> None:
    run = run_small(only={"algorithm": "protonet", "shot": [1]}, seeds=[4])
    assert run.directories == [Path("runs/small/default")]
    assert Path("runs/small/default/leaderboard.md").is_file()
    (cell,) = run.cells.itertuples()
    assert (cell.algorithm, cell.shot, cell.seed, cell.status) == ("protonet", 1, 4, "ok")
    out, err = capfd.readouterr()
    assert out == "", "standard output is the caller's"
    assert "small: 1 cell" in err
    again = run_small(seeds=[4])
    assert again.cells["seed"].tolist() == [4] * 4
    assert "1 of them finished before" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithms": {"protonett": {}}}, "suite: algorithms.protonett: no algorithm 'protonett'.*protonet"),
        ({"shots": [1, 1]}, "suite: shots: a value is given twice"),
        ({"train": {"stepps": 4}}, "suite: train.stepps: unknown key 'stepps'"),
        ({"name": object()}, "the suite is no mapping of plain values"),
        ({"algorithms": {"protonet": {"params": {"scale": "much"}}}}, "suite: algorithms.protonet.params.scale"),
    ],
)
def test_a_wrong_suite_of_python_is_refused_by_key_without_a_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message) as caught:
        metabench.run({**SUITE, **change}, workers=False)
    assert "suite:1" not in str(caught.value)
    assert not Path("runs").exists()


def test_other_wrong_arguments_are_refused() -> None:
    with pytest.raises(MetabenchError, match="no suite 'smal'"):
        metabench.run("smal")
    with pytest.raises(UsageError, match="the suite has no such algorithm"):
        run_small(only={"algorithm": "maml"})
    with pytest.raises(UsageError, match="workers=False runs one cell at a time: leave out jobs=2"):
        run_small(jobs=2)
    with pytest.raises(UsageError, match="give the output directory of a run"):
        metabench.load_run()
    with pytest.raises(MetabenchError, match="no directory nowhere"):
        metabench.load_run("nowhere")
    assert not Path("runs").exists()


def test_a_run_may_be_started_from_a_thread() -> None:
    found: list[metabench.Run] = []
    thread = threading.Thread(target=lambda: found.append(run_small(only={"algorithm": "protonet", "shot": 1})))
    thread.start()
    thread.join()
    assert len(found) == 1
    assert found[0].cells["status"].tolist() == ["ok"]


@pytest.mark.slow
def test_the_workers_of_a_script_do_not_import_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    text = f"""\
        import metabench
        print("imported")
        suite = {{**{SUITE!r}, "shots": [1], "algorithms": {{"protonet": {{}}}}}}
        print(metabench.run(suite, device="cpu", workers=True).cells["status"].tolist())
        """
    script.write_text(textwrap.dedent(text), encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "imported\n['ok']\n"


# ------------------------------------------------------------------------------------------------ results


Make = Callable[..., Record]
Results = Callable[..., EpisodeResults]


@pytest.fixture
def folder(make_record: Make, make_results: Results) -> Path:
    """Return a directory with three cells, of which one failed and one has other episodes."""
    store = Store(Path("out"))
    for number, (name, mean, episodes) in enumerate([("one", 0.8, "e"), ("two", 0.7, "e"), ("three", 0.9, "f")]):
        results = make_results(mean, noise=number)
        values = results.figures["accuracy"]
        record = make_record(
            accuracy={"mean": float(values.mean()), "ci95": 0.01, "std": float(values.std(ddof=1)), "episodes": 100},
            cell=f"{number + 1:016x}",
            algorithm=name,
            identity={"seed": 0, "algorithm": name},
            data={"episodes": episodes, "raw_files": 0},
        )
        store.write(record, results)
    store.write(make_record(None, cell="f" * 16, algorithm="broken", identity={"seed": 0, "algorithm": "broken"}))
    return Path("out")


def test_cells_are_a_data_frame_with_a_row_for_each(folder: Path) -> None:
    cells = metabench.load_run(folder).cells
    assert cells.index.name == "cell"
    assert cells["algorithm"].to_dict() == {
        f"{1:016x}": "one",
        f"{2:016x}": "two",
        f"{3:016x}": "three",
        "f" * 16: "broken",
    }
    assert cells.loc["f" * 16, "error"] == "it broke"
    assert cells.loc[f"{1:016x}", "accuracy"] == pytest.approx(0.8)
    assert {"ci95", "data_ci95", "train_seconds", "latency_ms_p50", "peak_memory_bytes"} <= set(cells)


def test_values_are_those_of_the_episodes(folder: Path) -> None:
    values = metabench.load_run(folder).values()
    assert values.shape == (100, 3)
    assert (values.index.name, values.columns.name) == ("episode", "cell")
    assert values.mean().tolist() == pytest.approx([0.8, 0.7, 0.9])


def test_two_cells_are_compared_as_in_the_leaderboard(folder: Path) -> None:
    run = metabench.load_run(folder)
    difference = run.compare("0000000000000002", "0000000000000001")
    (row,) = [row for table in run.tables for row in table.rows if row.name == "two"]
    assert row.versus_best is not None
    assert difference == row.versus_best
    assert difference.difference == pytest.approx(-0.1)
    assert run.compare(f"{1:016x}", f"{2:016x}").difference == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda run: run.compare(f"{1:016x}", f"{3:016x}"), "were tested on different episodes: they have no pairs"),
        (lambda run: run.compare(f"{1:016x}", "ffff"), "cell f{16} has no results, it is failed: it broke"),
        (lambda run: run.record("0"), "several cells begin with '0': 0000000000000001 .one., "),
        (lambda run: run.record("abc"), "there is no cell 'abc': "),
        (lambda run: run.values("acuracy"), r"'acuracy' of cell .* is none of its metrics .did you mean 'accuracy'"),
        (lambda run: run.only(algorithm="four"), "the runs has no such algorithm|no such algorithm"),
        (lambda run: run.learner(), "the run has 4 cells: name one"),
    ],
)
def test_what_a_run_has_not_is_refused(folder: Path, wrong: Callable[[metabench.Run], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wrong(metabench.load_run(folder))


def test_several_runs_stand_beside_one_another(folder: Path, make_record: Make, make_results: Results) -> None:
    Store(Path("other")).write(make_record(0.6, cell="a" * 16, algorithm="four"), make_results(0.6))
    both = metabench.load_run("out", metabench.load_run("other"))
    assert len(both.cells) == 5
    assert repr(both) == "<Run of suite: 5 cells in out, other>"
    assert len(both.only(algorithm=["one", "four"]).cells) == 2


def test_a_notebook_shows_the_leaderboard(folder: Path) -> None:
    html = metabench.load_run(folder)._repr_html_()
    assert html.count("<table>") == 1
    assert "three" in html


def test_plots_show_methods_and_trainings(folder: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    run = metabench.load_run(folder)
    figure, (left, right) = pyplot.subplots(1, 2)
    assert run.plot_accuracy(left) is left
    assert sorted(text.get_text() for text in left.get_legend().get_texts()) == ["one", "three", "two"]
    heights = sorted(float(np.mean(line.get_ydata())) for line in left.get_lines() if len(line.get_ydata()) == 1)
    assert heights[0] < 80 < heights[-1]
    assert run.plot_training(right) is right
    assert len(right.get_lines()) == 3
    pyplot.close(figure)
