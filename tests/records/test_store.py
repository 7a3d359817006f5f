from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from metabench.errors import StoreError
from metabench.files import atomic_file
from metabench.planning.cells import Cell
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.records.machines import Machine
from metabench.records.record import SCHEMA_VERSION, EpisodeResults, Record
from metabench.records.runs import Runs
from metabench.records.store import Store
from metabench.records.trained import TrainingFiles
from metabench.registry.manager import PluginManager

Make = Callable[..., Record]

NOTHING = EpisodeResults({"accuracy": np.zeros(2)}, np.zeros((2, 5), dtype=np.int64))


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


# --------------------------------------------------------------------------------------- what is written


def test_a_written_record_is_read_back(store: Store, make_record: Make) -> None:
    metrics = {"accuracy": {"value": 0.45, "ci95": 0.1, "std": 0.1, "episodes": 3}}
    alone = {"value": 0.75, "ci95": 0.1, "std": 0.1, "episodes": 2}
    record = make_record(way=2, metrics=metrics, inductive_accuracy=alone, transductive=True)
    groups = np.array([[0, 1], [1, 2], [4, 0]])
    results = EpisodeResults({"accuracy": np.array([0.1, 0.25, 1.0])}, groups, np.array([1.0, 0.5]))
    store.write(record, results, b"a picture")
    assert store.records() == [record]
    assert store.records_by_name() == {record.cell: record}
    stored = store.episodes(record)
    np.testing.assert_array_equal(stored.figures["accuracy"], results.figures["accuracy"])
    np.testing.assert_array_equal(stored.groups, results.groups)
    assert stored.alone is not None
    np.testing.assert_array_equal(stored.alone, [1.0, 0.5])
    assert store.picture(record.cell) == b"a picture"
    assert names_below(store.path) == [f"cells/{record.cell}.{suffix}" for suffix in ("json", "npz", "png")]


def test_the_record_is_plain_json_with_the_documented_names(store: Store, make_record: Make) -> None:
    store.write(make_record())
    content = json.loads((store.path / "cells" / "0123456789abcdef.json").read_text(encoding="utf-8"))
    assert content["schema_version"] == SCHEMA_VERSION == 3
    estimate = {"value": 0.9, "ci95": 0.0123, "std": 0.1, "episodes": 100, "data_ci95": None}
    assert content["metrics"] == {"accuracy": estimate}
    assert content["declarations"]["accuracy"]["better"] == "high"
    assert content["eval"]["latency_ms"] == {"p50": 1.5, "p95": 2.5}
    assert content["status"] == "ok"


def test_a_missing_directory_has_no_records(store: Store) -> None:
    assert not store.path.exists()
    assert store.records() == []


def test_skipped_records_are_not_read(store: Store, make_record: Make) -> None:
    store.write(make_record())
    (store.path / "cells" / "abc.json").write_text("{", encoding="utf-8")
    assert store.records_by_name(without=["abc"]) == {"0123456789abcdef": make_record()}


def test_dropping_the_weights_of_a_training_keeps_the_others(store: Store) -> None:
    one, other = TrainingFiles(store.path, "one"), TrainingFiles(store.path, "other")
    for files in (one, other):
        for path in (files.checkpoint, files.summary, files.snapshot("last")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"weights")
    store.drop_weights("one")
    store.drop_weights("never written", checkpoint=True)
    assert one.checkpoint.exists()
    assert not one.summary.exists()
    assert not one.snapshot("last").exists()
    store.drop_weights("one", checkpoint=True)
    assert not one.checkpoint.exists()
    assert all(path.exists() for path in (other.checkpoint, other.summary, other.snapshot("last")))


def test_forgetting_a_cell_deletes_its_files(store: Store, make_record: Make) -> None:
    kept, forgotten = make_record(cell="a" * 16), make_record(cell="b" * 16)
    for record in (kept, forgotten):
        store.write(record, NOTHING)
    store.write_text(f"cells/{forgotten.cell}.traceback.txt", "Traceback …")
    store.forget(forgotten.cell)
    assert names_below(store.path) == [f"cells/{kept.cell}.json", f"cells/{kept.cell}.npz"]


def test_the_suite_is_kept_as_yaml(store: Store) -> None:
    store.write_suite({"name": "ü", "ways": [5], "train": {"lr": 0.001}})
    text = (store.path / "suite.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == {"name": "ü", "ways": [5], "train": {"lr": 0.001}}
    assert text.splitlines()[1] == "name: ü", "after the line that says whose file it is"


# ------------------------------------------------------------------------------------- atomic and failing


def full_disk(*arguments: Any, **keywords: Any) -> None:
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("method", ["write_text", "replace", "chmod"])
def test_a_failed_write_leaves_the_old_record_and_nothing_else(
    store: Store, make_record: Make, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    old = make_record(mean=0.5)
    store.write(old, NOTHING)
    files = names_below(store.path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, method, full_disk)
        with pytest.raises(StoreError, match=r"cannot write to .*out: No space left on device.*--output"):
            store.write(make_record(mean=0.6), None)
    assert names_below(store.path) == files
    assert store.records() == [old]


def test_a_record_never_lacks_its_accuracies(store: Store, make_record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full_disk)
        with pytest.raises(StoreError, match="No space left"):
            store.write(make_record(), NOTHING)
    assert names_below(store.path) == []
    assert store.records() == []


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("ne")
        assert path.read_text() == "old"
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert names_below(tmp_path) == ["file"]


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.write_text("mine")

    def lock() -> None:
        with Store(path).locked():
            pass

    with pytest.raises(StoreError, match=r"cannot write to .*taken: File exists"):
        lock()
    assert path.read_text() == "mine"


# -------------------------------------------------------------------------------------------- what is bad


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is damaged"),
        (b'{"cell": "0123', "is damaged"),
        (b"\xff\xfe\x00", "is damaged"),
        (b"9" * 5000, "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"[]", "is not a record of metabench"),
        (b"{}", "is not a record of metabench"),
        (b'{"schema_version": 0}', "is not a record of metabench"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_damaged_record_is_named_with_advice(store: Store, content: bytes, reason: str) -> None:
    path = store.path / "cells" / "abc.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        store.records()
    message = str(caught.value)
    assert str(path) in message
    assert reason in message
    assert "delete it" in message
    assert "\n" not in message


def test_a_record_with_a_wrong_value_names_its_field(store: Store, make_record: Make) -> None:
    store.write(make_record())
    path = store.path / "cells" / "0123456789abcdef.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"way": 5', '"way": "five"'), encoding="utf-8")
    with pytest.raises(StoreError, match=r"not a record of metabench \(way: "):
        store.records()


def test_a_newer_record_asks_for_a_newer_program(store: Store, make_record: Make) -> None:
    store.write(make_record())
    path = store.path / "cells" / "0123456789abcdef.json"
    newer = {**json.loads(path.read_text(encoding="utf-8")), "schema_version": SCHEMA_VERSION + 1, "new_name": 1}
    path.write_text(json.dumps(newer), encoding="utf-8")
    with pytest.raises(StoreError, match=rf"newer metabench \(schema {SCHEMA_VERSION + 1}\): update"):
        store.records()


def test_reading_a_missing_directory_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no directory .*out"):
        Runs.read([store.path])


@pytest.mark.parametrize("content", [None, b"", b"words", b"PK\x03\x04"])
def test_unreadable_results_are_named(store: Store, make_record: Make, content: bytes | None) -> None:
    record = make_record()
    path = store.path / "cells" / f"{record.cell}.npz"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"per-episode results .*0123456789abcdef\.npz.*: run the suite again"):
        store.episodes(record)


@pytest.mark.parametrize("content", ["bit", "npy", "lengths", "names"])
def test_damaged_results_are_named(store: Store, make_record: Make, content: str) -> None:
    record = make_record(0.5)
    accuracies = np.random.default_rng(0).permutation(np.linspace(0, 1, 100))
    store.write(record, EpisodeResults({"accuracy": accuracies}, np.zeros((100, 5), dtype=np.int64)))
    assert store.is_complete(record)
    path = store.path / "cells" / f"{record.cell}.npz"
    if content == "bit":
        damaged = bytearray(path.read_bytes())
        damaged[200] ^= 0xFF
        path.write_bytes(damaged)
    elif content == "npy":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif content == "lengths":
        np.savez(path, **{"metrics/accuracy": accuracies}, groups=np.zeros((99, 5), dtype=np.int64))
    else:
        np.savez(path, accuracy=np.zeros(4))
    with pytest.raises(StoreError, match=rf"{record.cell}\.npz.*: run the suite again"):
        store.episodes(record)
    assert not store.is_complete(record)


# --------------------------------------------------------------------------------------------------- lock


def test_two_processes_do_not_write_to_one_directory(store: Store) -> None:
    script = (
        "import sys; from pathlib import Path; from metabench.records.store import Store\n"
        "with Store(Path(sys.argv[1])).locked(): print('locked', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(store.path)]

    def lock() -> None:
        with store.locked():
            pass

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(StoreError, match=r"another metabench run is writing to .*out.*--output"):
            lock()
        other.kill()  # the lock dies with its process, however it dies
        other.wait()
        lock()


def test_the_lock_is_free_after_an_error(store: Store) -> None:
    def fail() -> None:
        with store.locked():
            raise KeyError("x")

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()


# --------------------------------------------------------------------------------------------- superseded


@pytest.fixture
def plan(suite_file: Callable[[str], SuiteFile], plugins: PluginManager) -> list[Cell]:
    text = (
        "name: x\ndatasets: {glyphs: {}}\nbackbones: {conv4: {}}\nways: [2]\nshots: [1]\n"
        "train: {steps: 5}\nalgorithms: {protonet: {}, siamese: {}}\n"
    )
    return make_plan(*resolve(suite_file(text)), plugins)


def test_records_of_other_settings_are_superseded(store: Store, make_record: Make, plan: list[Cell]) -> None:
    current, same_with_other_seed = plan[0], replace(plan[0], training=replace(plan[0].training, seed=5))
    training = plan[1].training
    assert training.schedule is not None
    earlier = replace(plan[1], training=replace(training, schedule=replace(training.schedule, steps=4)))
    for cell in (current, same_with_other_seed, earlier):
        store.write(make_record(cell=cell.id, identity=cell.identity, seed=cell.seed), NOTHING)
    store.write_text(f"cells/{earlier.id}.traceback.txt", "Traceback …")
    store.supersede(store.records_by_name(), plan)
    assert {record.cell for record in store.records()} == {current.id, same_with_other_seed.id}
    assert names_below(store.path / "superseded") == sorted(
        f"{earlier.id}.{suffix}" for suffix in ("json", "npz", "traceback.txt")
    )
    assert (store.path / "cells" / f"{current.id}.npz").exists()


def test_records_of_the_same_settings_stay(store: Store, make_record: Make, plan: list[Cell]) -> None:
    for cell in plan:
        store.write(make_record(cell=cell.id, identity=cell.identity))
    store.supersede(store.records_by_name(), plan)
    assert len(store.records()) == len(plan)
    assert not (store.path / "superseded").exists()


def test_superseding_a_record_moves_only_its_own_file(store: Store, make_record: Make, plan: list[Cell]) -> None:
    store.write(make_record(cell=plan[0].id, identity=plan[0].identity), NOTHING)
    foreign, name = make_record(cell="*", identity={}), "f" * 16
    (store.path / "cells" / f"{name}.json").write_text(foreign.model_dump_json(), encoding="utf-8")
    store.supersede(store.records_by_name(), plan)
    assert names_below(store.path / "cells") == [f"{plan[0].id}.json", f"{plan[0].id}.npz"]
    assert names_below(store.path / "superseded") == [f"{name}.json"]


@pytest.mark.parametrize(
    ("device", "cuda", "machine"),
    [
        ("AMD EPYC, 2 threads", None, Machine(kind="cpu", name="AMD EPYC", threads=2)),
        ("AMD EPYC, 1 thread, 2 cells at once", None, Machine(kind="cpu", name="AMD EPYC", threads=1, cells_at_once=2)),
        ("A processor, fast, 64 threads", None, Machine(kind="cpu", name="A processor, fast", threads=64)),
        ("NVIDIA H100", "12.4", Machine(kind="cuda", name="NVIDIA H100")),
        ("NVIDIA H100, 4 cells at once", "12.4", Machine(kind="cuda", name="NVIDIA H100", cells_at_once=4)),
        ("", None, Machine(kind="cpu", name="")),
    ],
)
def test_the_machine_of_a_record_of_version_1_is_read_from_its_device(
    tmp_path: Path, make_record: Make, device: str, cuda: str | None, machine: Machine
) -> None:
    store = Store(tmp_path)
    store.write(make_record(device=device, environment={"cuda": cuda}))
    path = tmp_path / "cells" / "0123456789abcdef.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["machine"]
    path.write_text(json.dumps({**content, "schema_version": 1}), encoding="utf-8")
    (record,) = store.records()
    assert record.machine == machine
    assert str(record.machine) == record.device == device
