"""Standard output and error of any encoding, closed and full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import SUITE
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store

Make = Callable[..., Record]

METABENCH = [sys.executable, "-c", "from metabench.cli import main; main()"]


@pytest.fixture
def folders(tmp_path: Path, make_record: Make, make_results: Callable[..., EpisodeResults]) -> Path:
    """Return a folder with the runs `good` and `bad`, which is worse."""
    for name, loss in (("good", 0.0), ("bad", 0.3)):
        for i, mean in enumerate((0.9, 0.8)):
            record = make_record(mean - loss, cell=f"{i:016}", algorithm=f"method{i}", environment={"torch": "2"})
            Store(tmp_path / name).write(record, make_results(mean - loss))
    return tmp_path


def shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which $METABENCH is the program."""
    program = f"{sys.executable} -c 'from metabench.cli import main; main()'"
    return subprocess.run(
        ["bash", "-c", command.replace("$METABENCH", program)],
        cwd=folder,
        capture_output=True,
        encoding=variables.get("PYTHONIOENCODING", "utf-8"),
        env={**os.environ, **variables},
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("encoding", "row"),
    [
        ("cp1252", "  2  method1    80.00 ± 1.00       -10.00 ± 0.00  <.001"),
        ("latin-1", "  2  method1    80.00 ± 1.00       -10.00 ± 0.00  <.001"),
        ("ascii", "  2  method1    80.00 +- 1.00       -10.00 +- 0.00  <.001"),
        ("utf-8", "  2  method1    80.00 ± 1.00       −10.00 ± 0.00  <.001"),
    ],
)
def test_tables_print_in_every_encoding(folders: Path, encoding: str, row: str) -> None:
    done = shell("$METABENCH leaderboard good", folders, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any(line.startswith(" ".join(row.split())) for line in rows), done.stdout
    header, rule = done.stdout.splitlines()[1:3]
    assert len(header) <= len(rule), "columns stay aligned"


@pytest.mark.parametrize("command", ["report good", "compare good bad", "list", "leaderboard nowhere…", "run --help"])
def test_messages_print_in_ascii(folders: Path, command: str) -> None:
    done = shell(f"$METABENCH {command}", folders, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert "Traceback" not in done.stderr
    assert done.returncode == {"compare good bad": 1, "leaderboard nowhere…": 2}.get(command, 0)
    assert done.stdout + done.stderr != ""


@pytest.mark.parametrize(
    ("command", "code"),
    [("leaderboard good", 0), ("compare good good", 0), ("compare good bad", 1), ("--help", 0), ("list", 0)],
)
def test_a_reader_that_has_seen_enough_changes_no_exit_code(folders: Path, command: str, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*METABENCH, *command.split()], cwd=folders, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("$METABENCH leaderboard good >&-", 0),
        ("$METABENCH compare good bad >&-", 1),
        ("$METABENCH compare good bad 2>&-", 1),
        ("$METABENCH leaderboard nowhere 2>&-", 2),
        ("$METABENCH leaderboard nowhere 2>/dev/full", 2),
        ("$METABENCH leaderboard good <&- >&- 2>&-", 0),
        ("$METABENCH compare good bad >/dev/full", 1),
    ],
)
def test_closed_and_full_outputs_are_no_tracebacks(folders: Path, command: str, code: int) -> None:
    done = shell(command, folders)
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_full_output_is_said(folders: Path) -> None:
    done = shell("$METABENCH leaderboard good >/dev/full", folders)
    assert done.returncode == 2
    assert done.stderr == "metabench: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("redirection", [">/dev/full 2>/dev/full", ">&- 2>&-", "2>&1 | head -c 0"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_goes_on_without_its_outputs(tmp_path: Path, glyphs_cache: Path, redirection: str, jobs: int) -> None:
    (tmp_path / "small.yaml").write_text(SUITE, encoding="utf-8")
    command = f"$METABENCH run small.yaml --profile smoke --output out --jobs {jobs} {redirection}"
    done = shell(command, tmp_path, METABENCH_CACHE=str(glyphs_cache), OMP_NUM_THREADS="1")
    assert "Traceback" not in done.stdout + done.stderr
    records = Store(tmp_path / "out").records()
    assert [record.status for record in records] == ["ok", "ok"]
    assert (tmp_path / "out" / "leaderboard.md").exists()


def test_json_of_a_comparison_has_no_infinity(folders: Path) -> None:
    done = shell("$METABENCH compare good good --only algorithm=method0 --format json", folders)
    comparison = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {change["high"] for change in comparison["changes"]} == {None}, "one cell has no interval"


def test_options_with_terminal_escapes_are_shown_escaped(folders: Path) -> None:
    done = shell("$METABENCH leaderboard good --only $'algorithm=\\e[31m'", folders)
    assert done.returncode == 2
    assert r"\x1b[31m" in done.stderr
    assert "\x1b" not in done.stderr
