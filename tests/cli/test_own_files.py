"""A run overwrites nothing that metabench did not write, and makes names that every system accepts."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from command_line import SUITE, Command, assert_refused, everything_below
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RUN = ("--profile", "smoke", "--only", "algorithm=protonet")


@pytest.mark.parametrize("name", ["suite.yaml", "leaderboard.md", "leaderboard.csv", ".lock"])
def test_a_foreign_file_in_the_output_is_not_overwritten(metabench: Command, name: str) -> None:
    Path("suite.yaml").write_text(SUITE, encoding="utf-8")
    output = Path("." if name == "suite.yaml" else "mine")
    output.mkdir(exist_ok=True)
    if name != "suite.yaml":
        (output / name).write_text("### my notes on the accuracy\n", encoding="utf-8")
    before = everything_below(Path())
    assert_refused(metabench("run", "suite.yaml", "--output", str(output), *RUN), [name, "did not write", "--output"])
    assert everything_below(Path()) == before


@pytest.mark.parametrize("suite", sorted((Path(__file__).parents[2] / "suites").glob("*.yaml")), ids=lambda p: p.stem)
def test_no_suite_that_people_wrote_is_taken_for_that_of_a_run(tmp_path: Path, suite: Path) -> None:
    shutil.copy(suite, tmp_path / "suite.yaml")
    with pytest.raises(Exception, match="did not write"):
        Store(tmp_path).check_own()


def test_the_suite_of_a_run_resumes_it_in_its_place(metabench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert metabench("run", "small.yaml", "--output", "out", *RUN).code == 0
    monkeypatch.chdir("out")
    ended = metabench("run", "suite.yaml", "--output", ".", "--only", "algorithm=protonet")
    assert ended.code == 0, ended.err
    assert "kept    protonet" in ended.err


def test_a_report_overwrites_reports_only(metabench: Command) -> None:
    metabench("run", "small.yaml", "--output", "out", *RUN)
    for _ in range(2):
        assert metabench("report", "out").code == 0
    Path("notes.html").write_text("<p>mine</p>", encoding="utf-8")
    assert_refused(metabench("report", "out", "--output", "notes.html"), ["notes.html", "did not write", "--output"])
    assert Path("notes.html").read_text(encoding="utf-8") == "<p>mine</p>"


def test_names_of_files_suit_every_file_system(metabench: Command) -> None:
    label = 'a:b*c?"<>|\\\\ con.'
    Path("small.yaml").write_text(SUITE.replace("protonet: {}", f"'{label}': {{use: protonet}}"), encoding="utf-8")
    ended = metabench("run", "small.yaml", "--profile", "smoke", "--output", "out")
    assert ended.code == 0, ended.err
    names = [path.name for path in Path("out").rglob("*")]
    assert len(names) > 8
    assert [name for name in names if re.search(r'[:*?"<>|\\]|[. ]$', name)] == [], "NTFS refuses these"


def test_without_the_means_to_measure_it_the_peak_memory_is_absent(
    metabench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on Windows, which has neither /proc nor the module `resource`."""
    monkeypatch.setitem(sys.modules, "resource", None)
    for name in ("_STATUS", "_CLEAR_REFS"):
        monkeypatch.setattr(f"metabench.machine.memory.{name}", tmp_path / "no" / "proc")
    ended = metabench("run", "small.yaml", "--output", "out", "--in-process", *RUN)
    assert ended.code == 0, ended.err
    (record,) = Store(Path("out")).records()
    assert record.status == "ok"
    assert record.peak_memory_bytes is None
    assert metabench("leaderboard", "out").code == 0
