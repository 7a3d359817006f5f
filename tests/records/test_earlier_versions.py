"""Records and run folders of earlier versions, each made by the code of its time from the suite in the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import Command
from metabench.records.runs import Runs
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def folder(tmp_path: Path, version: int) -> Path:
    return Path(shutil.copytree(Path(__file__).parent / f"version_{version}", tmp_path / "old"))


def test_earlier_records_are_read_with_their_episodes(folder: Path, version: int) -> None:
    runs = Runs.read([folder])
    assert [record.schema_version for record in runs.records] == [version] * 4
    assert {str(record.machine) for record in runs.records} == {"A processor, 1 thread"}
    for record in runs.records:
        assert record.primary is not None
        assert np.mean(runs.values(record)) == pytest.approx(record.primary.value)
        assert set(record.metrics) == set(record.declarations) == {"accuracy"}
        kept = version > 1 or not record.transductive
        assert (runs.alone(record) is not None) == kept, "version 1 kept no episodes of transductive methods"


def test_an_earlier_run_has_a_leaderboard_and_a_report(metabench: Command, folder: Path, version: int) -> None:
    table = metabench("leaderboard", str(folder))
    assert table.code == 0
    shown = {1: "68.75 ± 10.44  T    50.00 ± 0.00", 2: "64.58 ± 10.07  T    45.83 ± 10.71"}[version]
    assert f"maml         {shown}" in table.out
    rows = json.loads(metabench("leaderboard", str(folder), "--format", "json").out)
    assert len(rows) == 4
    assert metabench("report", str(folder)).code == 0
    assert shown.partition("  T")[0] in (folder / "report.html").read_text(encoding="utf-8")


def test_an_earlier_run_is_compared(metabench: Command, folder: Path) -> None:
    ended = metabench("compare", str(folder), str(folder))
    assert ended.code == 0
    assert "passed: 4 same" in ended.out


@pytest.mark.parametrize("same_torch", [True, False])
def test_an_earlier_run_goes_on(metabench: Command, folder: Path, same_torch: bool) -> None:
    ids = {path.stem for path in (folder / "cells").glob("*.json")}
    for path in (folder / "cells").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        record["environment"]["torch"] = str(torch.__version__) if same_torch else "1.0"
        path.write_text(json.dumps(record), encoding="utf-8")
    ended = metabench("run", str(folder / "suite.yaml"), "--output", str(folder))
    assert ended.code == 0, ended.err
    records = Store(folder).records()
    assert [record.status for record in records] == ["ok"] * 4, "each cell of the suite has a good record"
    assert {path.stem for path in folder.glob("*/*.json")} >= ids, "no record is lost"
    if not same_torch:
        assert {record.schema_version for record in records} == {3}, "results of another torch are made again"
