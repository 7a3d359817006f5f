"""Output directories of one suite become one, without a change of any digit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from counting import Counted, finished_record, values_of
from metabench.contracts import EpisodeResults, estimate
from metabench.errors import StoreError
from metabench.records.merging import merge
from metabench.records.record import Record
from metabench.records.store import Store

CELLS = [Counted("protonet", number) for number in range(3)]


def run(path: Path, cells: list[Counted], name: str = "counted", **changes: object) -> Store:
    """Write a finished run of some of the cells."""
    store = Store(path)
    store.write_suite({"name": name})
    store.write_plan(CELLS)
    for cell in cells:
        add(store, cell, values_of(cell), **changes)
    return store


def add(store: Store, cell: Counted, values: np.ndarray, **changes: object) -> Record:
    fields = {"algorithm": cell.training, "identity": cell.identity, "metrics": {"score": estimate(values)}, **changes}
    record = store.count_look(finished_record(cell.id, **fields))
    store.write(record, EpisodeResults({"score": values}, np.empty((len(values), 0), np.int64)))
    return record


def merged(*sources: Store) -> Store:
    output = sources[0].path.parent / "merged"
    return merge([source.path for source in sources], output, lambda done, total: None)


def test_shards_become_one_run_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    one, other = run(tmp_path / "1", CELLS[:2]), run(tmp_path / "2", CELLS[2:])
    other.write(finished_record(CELLS[1].id, status="failed", error="a bug", metrics={}))
    other.write_text(other.traceback_name(CELLS[1].id), "Traceback")
    (one.path / "checkpoints").mkdir()
    (one.path / "checkpoints" / "unfinished.pt").write_bytes(b"half")
    result = merged(one, other)
    assert {**one.records_by_name(), CELLS[2].id: other.record(CELLS[2].id)} == result.records_by_name()
    assert all(result.is_complete(record) for record in result.records())
    assert result.suite_text() == one.suite_text()
    assert result.planned() == one.planned()
    assert result.checkpoints() == ["unfinished"]
    assert sum(result.looks().values()) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "merged"}


def test_a_copy_of_a_record_is_no_further_look(tmp_path: Path) -> None:
    one, other = run(tmp_path / "1", CELLS), run(tmp_path / "2", CELLS)
    assert sum(merged(one, other).looks().values()) == sum(one.looks().values()) == 3


def test_the_record_with_more_episodes_is_taken_where_both_agree(tmp_path: Path) -> None:
    one, other = run(tmp_path / "1", CELLS), run(tmp_path / "2", [])
    longer = add(other, CELLS[0], np.concatenate([values_of(CELLS[0]), [0.5, 0.25]]))
    assert merged(one, other).record(CELLS[0].id) == longer


def test_a_digit_that_differs_is_refused_by_name(tmp_path: Path) -> None:
    one, other = run(tmp_path / "1", CELLS), run(tmp_path / "2", [])
    values = values_of(CELLS[1])
    values[2] += 1e-9
    add(other, CELLS[1], values)
    with pytest.raises(StoreError, match=rf"cell {CELLS[1].id} \(protonet · .*\) has another score of episode 2 in"):
        merged(one, other)
    assert not (tmp_path / "merged").exists()


def test_a_record_that_is_invalid_in_one_directory_is_refused(tmp_path: Path) -> None:
    one, other = run(tmp_path / "1", CELLS), run(tmp_path / "2", CELLS[:1])
    path = other.path / "cells" / f"{CELLS[0].id}.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["invalidated"] = {"by": "somebody", "because": "wrong data", "on": "2026-03-01"}
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(StoreError, match="is ok and invalid in"):
        merged(one, other)


def test_other_suites_and_a_directory_with_content_are_refused(tmp_path: Path) -> None:
    one, other = run(tmp_path / "1", CELLS), run(tmp_path / "2", CELLS, name="another")
    with pytest.raises(StoreError, match=r"of different suites or settings \('name: counted' and 'name: another'\)"):
        merged(one, other)
    with pytest.raises(StoreError, match="a directory is named twice"):
        merged(one, Store(tmp_path / "." / "1"))
    with pytest.raises(StoreError, match=r"no run in .*: give the --output"):
        merged(one, Store(tmp_path / "nowhere"))
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "mine").touch()
    with pytest.raises(StoreError, match="merged exists: give a new directory"):
        merged(one, run(tmp_path / "3", CELLS))
