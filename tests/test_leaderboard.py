from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metabench.cli import main
from metabench.leaderboard import frame, ranked, render_csv, render_markdown, render_text
from metabench.record import Record
from metabench.store import Store

Make = Callable[..., Record]

HOSTILE = "<script>alert(`x`)</script> | **b** _i_ [l](u) # \\ &lt;"


@pytest.fixture
def records(make_record: Make) -> list[Record]:
    return [
        make_record(0.5, algorithm="middling", cell="a"),
        make_record(None, algorithm="broken", cell="b"),
        make_record(0.9, algorithm="best", cell="c", transductive=True),
        make_record(0.1, algorithm="worst", cell="d", environment={"cuda": "12.4"}, device="A GPU"),
        make_record(0.99, algorithm="alone", cell="e", shot=5),
    ]


def lines_of_table(text: str) -> list[str]:
    """Return the lines that begin with a rank, or with room for one."""
    return [line for line in text.splitlines() if re.match(r"\s{0,3}\d?\s+[a-z]", line) and "algorithm" not in line]


# ----------------------------------------------------------------------------------------------- ranking


def test_the_most_accurate_is_first_and_the_failed_last(records: list[Record]) -> None:
    assert [record.algorithm for record in ranked(records)] == ["best", "middling", "worst", "broken", "alone"]
    assert ranked(records[::-1]) == ranked(records)


def test_a_failed_cell_is_behind_one_that_got_nothing_right(make_record: Make) -> None:
    found = ranked([make_record(None, algorithm="a"), make_record(0.0, algorithm="z")])
    assert [record.algorithm for record in found] == ["z", "a"]


def test_each_dataset_backbone_way_and_shot_has_its_own_table(make_record: Make) -> None:
    text = render_text(
        [
            make_record(0.5),
            make_record(0.5, dataset="other"),
            make_record(0.5, backbone="wide"),
            make_record(0.5, way=20),
            make_record(0.5, shot=5),
        ]
    )
    titles = [line for line in text.splitlines() if "-way" in line]
    assert titles == [
        "glyphs · 5-way 1-shot · conv4 · 100 test episodes",
        "glyphs · 5-way 5-shot · conv4 · 100 test episodes",
        "glyphs · 20-way 1-shot · conv4 · 100 test episodes",
        "glyphs · 5-way 1-shot · wide · 100 test episodes",
        "other · 5-way 1-shot · conv4 · 100 test episodes",
    ]


# -------------------------------------------------------------------------------------------------- text


def test_the_text_says_what_was_measured(records: list[Record]) -> None:
    text = render_text(records)
    best, middling, worst, broken, alone = lines_of_table(text)
    assert re.match(r"\s*1\s+best\s+90\.00 ± 1\.23\s+T\s+100\s+20\s+256\s+1\.5\s+2\.5\s+1,234\s+cpu$", best)
    assert re.match(r"\s*2\s+middling\s+50\.00 ± 1\.23\s+100", middling)
    assert re.match(r"\s*3\s+worst\s.*cuda$", worst)
    assert re.match(r"\s+broken\s+failed\s+–", broken)
    assert re.match(r"\s*1\s+alone", alone)
    assert "broken failed: it broke" in text
    assert "cpu: A processor, 2 threads" in text
    assert "cuda: A GPU" in text
    assert "95 % interval" in text


def test_seeds_are_told_apart_where_there_are_several(make_record: Make) -> None:
    one = render_text([make_record(0.5, seed=3)])
    assert "seed" not in one
    two = render_text([make_record(0.5, seed=3), make_record(0.6, seed=4)])
    assert re.search(r"1\s+one\s+4\s+60\.00", two)
    assert re.search(r"2\s+one\s+3\s+50\.00", two)


def test_a_narrow_terminal_loses_columns_and_says_which(records: list[Record]) -> None:
    whole = render_text(records)
    assert "left out" not in whole
    widest = max(len(line) for line in whole.splitlines() if line.startswith("---"))
    assert "left out" not in render_text(records, widest)
    narrow = render_text(records, 50)
    assert all(len(line) <= 50 for line in lines_of_table(narrow))
    (note,) = [line for line in narrow.splitlines() if line.startswith("left out")]
    assert note.endswith("params, device (see --format csv)")
    shown = narrow.splitlines()[1]
    left_out = note.partition(": ")[2].partition(" (")[0].split(", ")
    assert [title for title in left_out if title in shown] == []


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_however_narrow_the_algorithm_and_its_accuracy_stay(make_record: Make, seeds: tuple[int, int]) -> None:
    found = [make_record(0.5, algorithm=name, seed=seed) for name, seed in zip("ab", seeds, strict=True)]
    text = render_text(found, 5)
    assert text.count("50.00 ± 1.23") == 2
    assert re.search(r"1\s+a\s", text)


def test_an_accuracy_of_everything_and_of_nothing_is_shown(make_record: Make) -> None:
    text = render_text([make_record(1.0, algorithm="all"), make_record(0.0, algorithm="none")])
    assert "100.00 ± 1.23" in text
    assert "0.00 ± 1.23" in text


# ---------------------------------------------------------------------------------------------- markdown


def test_markdown_is_one_table_a_group(records: list[Record]) -> None:
    text = render_markdown(records)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {12}
    assert sum(line.startswith("### ") for line in text.splitlines()) == 2
    assert "broken failed: it broke" in text


def unescaped(text: str) -> str:
    return unescape(re.sub(r"\\([\\`*_\[\]<>|#&~])", r"\1", text))


def test_hostile_names_are_shown_and_do_nothing(make_record: Make) -> None:
    text = render_markdown(
        [
            make_record(0.5, algorithm=HOSTILE, device=HOSTILE, backbone=HOSTILE),
            make_record(None, algorithm=HOSTILE, error=f"{HOSTILE}\n\n# big\n| a | b |", backbone=HOSTILE),
        ]
    )
    assert "<script" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 12, "a name made a column"
        assert not re.search(r"(?<!\\)(?:\\\\)*`", line), "a name made code"
        assert not re.match(r"# ", line), "a message made a heading"
    assert unescaped(text).count(HOSTILE) == 6
    assert text.count("### ") == 1


# ------------------------------------------------------------------------------------------- csv and json


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with None for whatever is missing."""
    return table.astype(object).where(table.notna(), None)


def test_csv_holds_all_figures_unrounded(records: list[Record], make_record: Make) -> None:
    records = [*records, make_record(1 / 3, algorithm=f'{HOSTILE},"\n', cell="f", shot=20)]
    read = pd.read_csv(io.StringIO(render_csv(records)))
    expected = frame(records)
    pd.testing.assert_frame_equal(plain(read), plain(expected))
    assert list(read["cell"]) == ["c", "a", "d", "b", "e", "f"]
    assert read["accuracy"].iloc[-1] == 1 / 3
    assert read["algorithm"].iloc[-1] == f'{HOSTILE},"\n'
    broken = read[read["cell"] == "b"].iloc[0]
    assert (broken["status"], broken["error"]) == ("failed", "it broke")
    assert np.isnan(broken["accuracy"])


@pytest.fixture
def printed(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return a function that returns what `metabench leaderboard` prints of stored records."""
    store = Store(tmp_path / "out")
    for record in records:
        store.write(record, None)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["metabench", "leaderboard", str(tmp_path / "out"), *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        return capsys.readouterr().out

    return run


def test_the_command_prints_what_is_stored(printed: Callable[..., str], records: list[Record]) -> None:
    assert printed().strip() == render_text(records).strip()
    assert printed("--format", "markdown") == render_markdown(records)
    assert printed("--format", "csv") == render_csv(records)


def test_json_is_the_records_in_order(printed: Callable[..., str], records: list[Record]) -> None:
    found = [Record.model_validate(entry) for entry in json.loads(printed("--format", "json"))]
    assert found == ranked(records)
