"""A static site of many runs: what it shows, that it is whole, and that it replaces nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from command_line import Ended, assert_refused, ended
from metabench.cli import cli, main
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from page_structure import Structure

Make = Callable[..., Record]
#: Writes a run of some records; returns its directory.
Write = Callable[..., Path]
#: Runs `metabench site` in the current folder.
Site = Callable[..., Ended]

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"{{7*7}}'"
INDEX, TASK = Path("site/index.html"), Path("site/tasks/glyphs-5-way-1-shot.html")


@pytest.fixture
def write(tmp_path: Path, make_results: Callable[..., EpisodeResults], monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that stores runs below the current folder."""
    monkeypatch.chdir(tmp_path)

    def store(name: str, *records: Record) -> Path:
        found = Store(tmp_path / name)
        for record in records:
            value = record.primary and record.primary.value
            found.write(record, None if value is None else make_results(value, noise=int(record.cell, 16)))
        return found.path

    return store


@pytest.fixture
def site(write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    def run(*arguments: str) -> Ended:
        return ended(["site", *arguments], monkeypatch, capsys)

    return run


@pytest.fixture
def two_runs(write: Write, make_record: Make) -> list[str]:
    """Return a run of a suite with a version, and one of other data on another machine."""
    environment = {"metabench": "0.1.0"}
    data = {"episodes": "the same", "raw_files": 0}
    first = {"suite": "small", "suite_version": 2, "environment": environment, "data": {**data, "licence": "CC0"}}
    second = {"data": data, "suite": "other", "environment": environment, "device": "Another processor, 4 threads"}
    subset = {"identity": {"seed": 0, "subset": {"classes": 20}}}
    write(
        "first",
        make_record(0.8, algorithm="maml", cell=f"{1:016}", **first),
        make_record(0.7, algorithm="protonet", cell=f"{2:016}", **first),
        make_record(0.85, algorithm="protonet", cell=f"{3:016}", shot=5, **first),
    )
    write("second", make_record(0.6, algorithm="protonet", cell=f"{4:016}", **second, **subset))
    return ["first", "second"]


def content(folder: str) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def structure(page: Path) -> Structure:
    found = Structure()
    found.feed(re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.S))
    return found


def rows(page: Path) -> list[tuple[str, list[str]]]:
    """Return the methods of a task's first table, with their texts."""
    body = page.read_text(encoding="utf-8").partition('class="standings')[2].partition("</table>")[0]
    found = []
    for row in re.findall(r"<tr [^>]*>(.*?)</tr>", body, re.S):
        cells = [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)]
        found.append((cells[0], cells[1:]))
    return found


# --------------------------------------------------------------------------------------------- what it shows


def test_a_task_has_the_methods_of_all_runs_ranked_once_and_links_their_reports(
    site: Site, two_runs: list[str]
) -> None:
    ended = site(*two_runs)
    assert ended.code == 0, ended.err
    assert re.fullmatch(r"Written to site: 6 pages, \d\.\d MB\n", ended.out)
    found = rows(TASK)
    assert [(name, cells[0]) for name, cells in found] == [
        ("maml", "1"),
        ("protonet (small)", "2"),
        ("protonet (other)", "3"),
    ]
    assert ["second" in cells for _, cells in found] == [False, False, True]
    assert structure(TASK).links.count("../runs/first.html") == 2
    text = INDEX.read_text(encoding="utf-8")
    assert "4 cells of 2 runs in 2 tables" in text
    for said in ("small, v2", "CC0", "Another processor, 4 threads", "2025-01-01", "runs/second.html"):
        assert said in text, said


def test_rows_have_the_facts_by_which_readers_choose(site: Site, two_runs: list[str]) -> None:
    site(*two_runs)
    text = TASK.read_text(encoding="utf-8")
    lists = {
        fact: re.findall(r"<option>(.*?)</option>", options)
        for fact, options in re.findall(r'<select data-fact="(\w+)">(.*?)</select>', text)
    }
    assert lists == {
        "method": ["maml", "protonet"],
        "run": ["first", "second"],
        "machine": ["A processor, 2 threads", "Another processor, 4 threads"],
        "data": ["glyphs", "glyphs (classes 20)"],
    }
    assert dict(rows(TASK))["protonet (other)"].count("glyphs (classes 20)") == 1
    one_machine = Path("site/tasks/glyphs-5-way-5-shot.html").read_text(encoding="utf-8")
    assert "Data used, of all: glyphs. Machine, of all: A processor, 2 threads." in one_machine
    assert "<select" not in one_machine


def test_without_javascript_the_tables_are_whole_and_no_control_is_shown(site: Site, two_runs: list[str]) -> None:
    site(*two_runs)
    text = TASK.read_text(encoding="utf-8").partition("<script>")[0]
    assert len(rows(TASK)) == 3
    assert re.findall(r"<(?:input|select)", text.partition("data-scripted hidden>")[0]) == []
    assert re.findall(r"<(?:input|select)", text.partition("data-scripted hidden>")[2].partition("</div>")[2]) == []


def test_a_method_has_one_colour_on_all_pages(site: Site, two_runs: list[str]) -> None:
    site(*two_runs)
    marks: dict[str, set[str]] = {}
    for page in Path("site").rglob("*.html"):
        for name, colours in structure(page).marks.items():
            marks.setdefault(name.partition(" (")[0], set()).update(colours)
    assert marks.keys() >= {"maml", "protonet"}
    assert all(len(colours) == 1 for colours in marks.values()), marks


def test_methods_of_other_episodes_are_shown_and_not_ranked(site: Site, write: Write, make_record: Make) -> None:
    def on(episodes: str, number: int, name: str) -> Record:
        data = {"episodes": episodes, "raw_files": 0}
        return make_record(0.5 + 0.1 * number, algorithm=name, cell=f"{number:016}", data=data)

    write("here", on("these", 1, "one"), on("these", 2, "two"))
    write("there", on("others", 3, "three"))
    site("here", "there")
    assert [(name, cells[0]) for name, cells in rows(TASK)] == [("two", "1"), ("one", "2"), ("three", "")]
    assert "tested on other episodes, so neither ranked nor compared: three" in TASK.read_text(encoding="utf-8")


def test_invalid_cells_are_marked_by_whom_and_why(
    site: Site, two_runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["invalidate", "first", "--cell", f"{1:016}", "--by", "Ada", "--because", "the wrong split"]
    monkeypatch.setattr(sys, "argv", ["metabench", *arguments])
    with pytest.raises(SystemExit):
        main()
    ended = site(*two_runs)
    assert ended.code == 1
    assert "marked as invalid by Ada" in ended.err
    assert rows(TASK)[-1][:1] == ("maml",)
    assert rows(TASK)[-1][1][:2] == ["", "invalid"]
    missing = TASK.read_text(encoding="utf-8").partition('<h2 id="missing">')[2]
    assert re.search(r">maml</th>.*marked as invalid by Ada on [\d-]+: the wrong split", missing)
    assert "1 invalid" in INDEX.read_text(encoding="utf-8")


def test_regressions_and_results_of_other_code_have_their_places(site: Site, write: Write, make_record: Make) -> None:
    metric = {"title": "MSE", "better": "low", "lowest": 0.0}
    regression = make_record(
        None, status="ok", error=None, task="regression", dataset="waves", way=1, shot=10, cell="a" * 16,
        ranked_by="mse", metrics={"mse": {"value": 0.5, "ci95": 0.01, "std": 0.1, "episodes": 100}},
        declarations={"mse": metric},
    )  # fmt: skip
    values = 0.5 + np.resize([0.1, -0.1], 100)
    Store(Path("waves")).write(regression, EpisodeResults({"mse": values}, np.empty((100, 0), dtype=np.int64)))
    write("imported", make_record(0.6, algorithm="theirs", external="theirs.csv", suite="imported", cell=f"{7:016}"))
    write("ours", make_record(0.7, algorithm="ours", cell=f"{8:016}"))
    assert site("waves", "imported", "ours").code == 0
    index = INDEX.read_text(encoding="utf-8")
    assert "waves · 10-shot · regression" in index
    assert "MSE 0.500 ± 0.020" in index
    assert [name for name, _ in rows(TASK)] == ["ours", "theirs (external)"]
    assert "not known" in dict(rows(TASK))["theirs (external)"]
    assert '<th scope="row" class="left">imported</th>' not in index, "results of other code have no suite to cite"


def test_readers_choose_rows_by_lists_and_words(site: Site, two_runs: list[str], chromium: webdriver.Chrome) -> None:
    site(*two_runs)
    chromium.get(TASK.resolve().as_uri())

    def shown() -> list[str]:
        found = chromium.find_elements(By.CSS_SELECTOR, ".standings tbody tr")
        return [
            str(row.find_element(By.TAG_NAME, "th").get_attribute("data-value")) for row in found if row.is_displayed()
        ]

    def choose(fact: str, value: str) -> None:
        Select(chromium.find_element(By.CSS_SELECTOR, f"select[data-fact={fact}]")).select_by_visible_text(value)

    choose("run", "first")
    assert shown() == ["maml", "protonet (small)"]
    assert chromium.find_element(By.ID, "count").text == "2 of 3 shown"
    choose("method", "protonet")
    assert shown() == ["protonet (small)"]
    choose("run", "all")
    chromium.find_element(By.ID, "filter").send_keys("other")
    assert shown() == ["protonet (other)"]
    assert [entry for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


# ---------------------------------------------------------------------------------------------- its pages


def test_links_are_relative_and_lead_somewhere(site: Site, two_runs: list[str]) -> None:
    site(*two_runs)
    pages = list(Path("site").rglob("*.html"))
    assert len(pages) == 6
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?!data:)', text) == []
        found = structure(page)
        for link in found.links:
            place, _, part = link.partition("#")
            assert not re.match(r"\w+:|/", place), link
            assert (page.parent / place).is_file() if place else part in found.ids, link


def test_pages_have_headings_and_headers_for_screen_readers(site: Site, two_runs: list[str]) -> None:
    site(*two_runs)
    for page in (INDEX, TASK, Path("site/submit.html")):
        found = structure(page)
        assert found.levels[0] == 1
        assert found.levels.count(1) == 1
        assert all(later <= earlier + 1 for earlier, later in zip(found.levels, found.levels[1:], strict=False))
        captions = [table.caption.strip() for table in found.tables]
        assert all(captions)
        assert len(set(captions)) == len(captions)
        for table in found.tables:
            assert set(table.rows[0]) == {"th"}
            assert all(row[0] == "th" and "th" not in row[1:] for row in table.rows[1:])


def test_names_are_shown_as_text(site: Site, write: Write, make_record: Make) -> None:
    hostile = {"algorithm": HOSTILE, "dataset": HOSTILE, "suite": HOSTILE, "device": HOSTILE}
    write("here", make_record(0.5, **hostile), make_record(None, cell="f" * 16, **{**hostile, "error": HOSTILE}))
    assert site("here").code == 0
    for page in Path("site").rglob("*.html"):
        assert "<script>window" not in page.read_text(encoding="utf-8")
        assert "<img src=x" not in page.read_text(encoding="utf-8")


def test_the_address_for_submissions_is_linked(site: Site, two_runs: list[str]) -> None:
    site(*two_runs, "--submit", "https://example.org/results?a=1&b=2")
    text = Path("site/submit.html").read_text(encoding="utf-8")
    assert '<a href="https://example.org/results?a=1&amp;b=2">' in text
    assert_refused(site(*two_runs, "--submit", "javascript:alert(1)"), ["is no address", "https://"])


def test_the_page_on_submitting_names_commands_and_options_that_exist(site: Site, two_runs: list[str]) -> None:
    site(*two_runs)
    text = Path("site/submit.html").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:<pre[^>]*>)?metabench (.*?)(?:</pre>)?$", text, re.M)
    assert len(lines) == 7
    for line in lines:
        name, *words = line.split()
        command = cli.commands[name]
        if isinstance(command, click.Group):
            command = command.commands[words[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_equal_runs_make_equal_sites_in_any_order(site: Site, two_runs: list[str]) -> None:
    site(*two_runs, "--output", "one")
    site(*reversed(two_runs), "--output", "other")
    assert content("one") == content("other")


def test_runs_of_one_name_are_told_apart(site: Site, write: Write, make_record: Make) -> None:
    write("a/out", make_record(0.5, algorithm="one", cell=f"{1:016}"))
    write("b/out", make_record(0.6, algorithm="two", cell=f"{2:016}"))
    site("a/out", "b/out")
    assert {path.name for path in Path("site/runs").iterdir()} == {"a-out.html", "b-out.html"}
    assert_refused(site("a/out", "./a/out"), ["a run is given twice"])


# ---------------------------------------------------------------------------------------------- its folder


def test_a_site_takes_the_place_of_an_earlier_one(site: Site, two_runs: list[str]) -> None:
    site(*two_runs)
    assert site("second").code == 0
    assert {path.name for path in Path("site/runs").iterdir()} == {"second.html"}
    assert not Path("site/tasks/glyphs-5-way-5-shot.html").exists()
    assert list(Path().glob(".*")) == []


def test_what_is_no_site_is_not_replaced(site: Site, two_runs: list[str]) -> None:
    for name in ("of/mine.txt", "of/site.json"):
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine", encoding="utf-8")
        assert_refused(site(*two_runs, "--output", "of"), ["metabench did not write", path.name])
        assert path.read_text(encoding="utf-8") == "mine"
        shutil.rmtree("of")
    site(*two_runs)
    Path("site/CNAME").write_text("example.org", encoding="utf-8")
    before = content("site")
    assert_refused(site("second"), ["metabench did not write CNAME"])
    assert content("site") == before
    assert_refused(site(*two_runs, "--output", "first"), ["metabench did not write"])
    assert_refused(site(*two_runs, "--output", "."), ["holds the current folder"])
    assert_refused(site(*two_runs, "--output", "site/index.html"), ["metabench did not write index.html"])


def test_a_broken_run_is_refused_and_the_earlier_site_stays(site: Site, two_runs: list[str]) -> None:
    site(*two_runs)
    before = content("site")
    Path("second/cells/0000000000000004.json").write_text("{", encoding="utf-8")
    assert_refused(site(*two_runs), ["0000000000000004.json is damaged"])
    assert_refused(site("first", "nowhere"), ["no directory nowhere"])
    assert content("site") == before


def test_an_interrupted_build_leaves_the_earlier_site_whole(
    site: Site, two_runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site(*two_runs)
    before = content("site")

    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("metabench.reporting.site.pages.render_page", interrupted)
    assert site("second").code == 130
    assert site("second", "--output", "new").code == 130
    assert content("site") == before
    assert not Path("new").exists()
    assert list(Path().glob(".*")) == []


def test_a_full_disk_leaves_the_earlier_site_whole(
    site: Site, two_runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site(*two_runs)
    before = content("site")
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(28, "No space left on device", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    assert_refused(site("second"), ["cannot write", "No space left on device"])
    assert content("site") == before


def test_a_site_imports_no_torch(two_runs: list[str]) -> None:
    script = (
        "import sys\nfrom metabench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end:\n"
        "    sys.exit('imported torch' if 'torch' in sys.modules else end.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "site", *two_runs], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
