"""A new plugin installs, passes its tests and runs in a suite as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metabench.cli import main
from metabench.records.store import Store

Ended = tuple[object, str, str]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Return a function that runs `metabench plugin new` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["metabench", "plugin", "new", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("kind", ["algorithm", "backbone", "dataset"])
def test_a_new_plugin_installs_passes_its_tests_and_runs(
    command: Callable[..., Ended], tmp_path: Path, glyphs_cache: Path, kind: str
) -> None:
    code, out, _ = command("metabench-my-idea", "--kind", kind)
    assert code == 0
    assert "pip install -e 'metabench-my-idea[dev]'" in out
    project, site = tmp_path / "metabench-my-idea", tmp_path / "site"

    def do(*arguments: str) -> str:
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        environment = {**os.environ, "PYTHONPATH": path, "METABENCH_CACHE": str(glyphs_cache), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site))
    do(*pip, str(project))
    assert " passed" in do(sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", str(project))
    metabench = (sys.executable, "-c", "from metabench.cli import main; main()")
    assert "my_idea" in do(*metabench, "list", f"{kind}s")
    table = do(*metabench, "run", str(project / "suite.yaml"), "--profile", "smoke", "--output", "out")
    assert "my_idea" in table
    assert {record.status for record in Store(tmp_path / "out").records()} == {"ok"}
    ruff = (
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--line-length",
        "120",
        "--select",
        "E,F,UP,B,ANN",
        "--exclude",
        "build",
    )
    do(*ruff, str(project))
    do(
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--isolated",
        "--line-length",
        "120",
        "--exclude",
        "build",
        "--check",
        str(project),
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("protonet", "the algorithm 'protonet' exists already, in metabench"),
        ("metabench-maml", "the algorithm 'maml' exists already"),
        ("metabench", "gives no valid name"),
        ("my idea", "not a valid name for a distribution"),
        ("../idea", "not a valid name for a distribution"),
        ("-idea", "No such option"),
        ("", "not a valid name for a distribution"),
        ("there", "there exists already"),
    ],
)
def test_an_unusable_name_is_refused_and_nothing_is_written(
    command: Callable[..., Ended], tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "there").mkdir()
    code, out, err = command(name)
    assert code == 2
    assert out == ""
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_full_disk_leaves_nothing_behind(
    command: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "touch", full)
    code, _, err = command("idea")
    assert code == 2
    assert "cannot write idea: No space left" in err
    assert list(tmp_path.iterdir()) == []
