"""A record found wrong is marked by whom and why, is not ranked, and can be marked back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Command
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store

CELL = "0123456789abcdef"
MARK = ("--by", "Ada", "--because", "its classes were those of the training")


@pytest.fixture
def run(metabench: Command, make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]) -> Path:
    """Return a run of two methods."""
    path = Path("run")
    Store(path).write(make_record(), make_results(0.9))
    Store(path).write(make_record(0.8, algorithm="two", cell="2" * 16), make_results(0.8))
    return path


def test_a_marked_record_is_named_with_the_reason_and_not_ranked(run: Path, metabench: Command) -> None:
    before = (run / "cells" / f"{CELL}.json").read_text()
    assert metabench("invalidate", "run", "--cell", CELL, *MARK).code == 0
    ended = metabench("leaderboard", "run")
    assert ended.code == 1
    assert "marked as invalid by Ada on 20" in ended.err
    assert "its classes were those of the training" in ended.out
    assert "90.00" not in ended.out
    assert metabench("compare", "run", "run").code == 1
    assert metabench("report", "run").code == 1
    assert "marked as invalid by Ada" in (run / "report.html").read_text()
    assert metabench("invalidate", "run", "--cell", CELL, "--undo").code == 0
    assert metabench("leaderboard", "run").code == 0
    assert "90.00" in metabench("leaderboard", "run").out
    assert Record.model_validate_json((run / "cells" / f"{CELL}.json").read_text()) == Record.model_validate_json(
        before
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cell", CELL], "--by and --because"),
        (["--cell", CELL, "--by", "Ada"], "--by and --because"),
        (["--cell", CELL, *MARK, "--undo"], "--by and --because"),
        (["--cell", "0123456789abcdee", *MARK], f"did you mean '{CELL}'?"),
        (["--cell", CELL, "--undo"], "is not marked"),
    ],
)
def test_wrong_options_change_nothing(run: Path, metabench: Command, arguments: list[str], words: str) -> None:
    before = {path: path.read_bytes() for path in (run / "cells").iterdir()}
    ended = metabench("invalidate", "run", *arguments)
    assert ended.code == 2
    assert words in ended.err
    assert before == {path: path.read_bytes() for path in (run / "cells").iterdir()}


def test_a_folder_without_a_run_is_refused(metabench: Command) -> None:
    assert metabench("invalidate", "nothing", "--cell", CELL, *MARK).code == 2
    assert not Path("nothing").exists()


def test_a_record_that_is_wrong_is_made_anew_by_the_next_run(metabench: Command) -> None:
    command = ("run", "small.yaml", "--profile", "smoke", "--in-process", "--only", "algorithm=protonet")
    assert metabench(*command, "--output", "run").code == 0
    (record,) = Store(Path("run")).records()
    assert metabench("invalidate", "run", "--cell", record.cell, *MARK).code == 0
    assert metabench(*command, "--output", "run").code == 0
    (again,) = Store(Path("run")).records()
    assert (again.status, again.invalidated) == ("ok", None)
    assert again.primary == record.primary
