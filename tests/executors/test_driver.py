from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metabench.api import TensorRows
from metabench.contracts import RunOptions
from metabench.data.packing import DataRoots
from metabench.engine.progress import Interrupted
from metabench.executors import driver
from metabench.executors.driver import run_work
from metabench.executors.few_shot import FewShotWork
from metabench.executors.job import TrainingJob
from metabench.executors.loading import LoadedDataset, load_datasets
from metabench.executors.origin import Code
from metabench.planning.cells import Cell
from metabench.planning.suite import Suite
from metabench.records.machines import Machine
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.records.trained import TrainingFiles
from metabench.registry.manager import PluginManager
from tiny import CPU, PARAMS, REAL, SUITE, Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

Plan = Callable[..., tuple[Suite, list[Cell]]]


@pytest.fixture
def run_all(run_suite: Callable[..., list[Record]]) -> Callable[..., list[Record]]:
    """Return a function that runs a suite of these algorithms into one store."""

    def start(*algorithms: str, text: str | None = None, **settings: Any) -> list[Record]:
        entries = ", ".join(f"{name}: {{params: {{{PARAMS.get(name, '')}}}}}" for name in algorithms)
        return run_suite((text or SUITE).format(algorithms=entries), **settings)

    return start


RunAll = Callable[..., list[Record]]


def test_a_bug_in_a_plugin_fails_its_cell_and_no_other(run_all: RunAll, tmp_path: Path, data: LoadedDataset) -> None:
    first, faulty, last = run_all("centroid", "faulty", "relative")
    assert [first.status, faulty.status, last.status] == ["ok", "failed", "ok"]
    assert faulty.error is not None
    assert faulty.error.startswith("KeyError: 'a bug of the plugin' (see cells/")
    log = (tmp_path / "out" / faulty.error.rpartition("(see ")[2].rstrip(")")).read_text(encoding="utf-8")
    assert log.startswith("Traceback")
    assert 'raise KeyError("a bug of the plugin")' in log
    assert faulty.primary is faulty.train is faulty.eval is faulty.transductive is None
    assert first.dataset_fingerprint == data.fingerprint
    assert {record.cell for record in Store(tmp_path / "out").records()} == {first.cell, faulty.cell, last.cell}


def test_a_cell_that_does_not_fit_is_skipped_with_the_reason(run_all: RunAll, tmp_path: Path) -> None:
    first, skipped, last = run_all("centroid", "choosy", "relative")
    assert [first.status, skipped.status, last.status] == ["ok", "skipped", "ok"]
    assert skipped.error == "three classes are a crowd: change ways"
    assert skipped.primary is skipped.train is skipped.eval is skipped.transductive is None
    assert {path.name for path in (tmp_path / "out" / "cells").glob(f"{skipped.cell}*")} == {f"{skipped.cell}.json"}
    assert Store(tmp_path / "out").records_by_name()[skipped.cell] == skipped


def test_a_backbone_that_does_not_fit_the_images_skips_its_cells(
    tmp_path: Path, data: LoadedDataset, everything: PluginManager, cells_of: Plan
) -> None:
    small = {name: replace(split, images=split.images[..., :8, :8]) for name, split in data.splits.items()}
    suite, cells = cells_of("protonet", text=REAL)
    datasets, prints = {"blots": replace(data, splits=small)}, {"blots": data.fingerprint}
    store, options = Store(tmp_path), RunOptions(in_process=True)
    work = FewShotWork(suite, cells, cells, prints, CPU, everything, store, {}, {}, options, datasets)
    (record,) = run_work(work, everything, store, Watching(), options)
    assert record.status == "skipped"
    assert record.error == "conv4 halves an image four times: (8, 8) is too small (at least 16×16)"


def test_a_skipped_cell_is_run_again_only_if_its_code_changed(run_all: RunAll, tmp_path: Path) -> None:
    (first,) = run_all("choosy")
    again = Watching()
    assert run_all("choosy", watcher=again) == [first]
    assert again.done == [("choosy", True)]
    of_other_code = {**first.environment, "code": {"algorithm": "0" * 16}}
    Store(tmp_path / "out").write(first.model_copy(update={"environment": of_other_code}))
    changed = Watching()
    run_all("choosy", watcher=changed)
    assert changed.done == [("choosy", False)]


def test_a_divergence_is_a_failed_record_without_a_traceback(run_all: RunAll, tmp_path: Path) -> None:
    (record,) = run_all("blank")
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.startswith("a prediction is not finite")
    assert [path.suffix for path in (tmp_path / "out" / "cells").iterdir()] == [".json"]


def test_a_cell_that_the_data_is_too_small_for_fails_alone(run_all: RunAll) -> None:
    small, large = run_all("centroid", text=in_shots(1, 5))  # which share a training; blots has 8 images of each class
    assert (small.status, small.shot) == ("ok", 1)
    assert (large.status, large.shot) == ("failed", 5)
    assert large.error is not None
    assert re.match(r"9 images of a class asked of 'blots' \(5 shots.*val split has 8: lower the shots", large.error)


def test_a_failure_while_the_run_is_stopped_is_an_interruption(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager, tmp_path: Path
) -> None:
    _, (cell,) = cells_of("faulty")
    machine = Machine(kind="cpu", name="a processor")
    job = TrainingJob(
        cell.training,
        [cell],
        [cell.selection],
        "tiny",
        "",
        CPU,
        machine,
        {},
        Store(tmp_path),
        datasets={"blots": data},
        plugins=everything,
    )
    stopping = Watching("train", 0)
    stopping.phase("train", 1)
    stopping.advance(0)
    with pytest.raises(Interrupted):
        list(job.run(stopping))


def test_a_record_has_the_providers_and_versions(run_all: RunAll) -> None:
    (record,) = run_all("centroid")
    assert record.environment["providers"]["algorithm"] == "unknown", "an entry point of no distribution"
    assert record.environment["torch"] == torch.__version__
    assert record.environment["cuda"] is None
    assert record.identity["train"]["steps"] == 8
    assert (record.way, record.shot, record.queries) == (3, 2, 4)


def test_the_accuracy_of_every_episode_is_kept(run_all: RunAll, tmp_path: Path) -> None:
    (record,) = run_all("fading")
    kept = Store(tmp_path / "out").episodes(record)
    assert record.primary is not None
    assert kept.figures["accuracy"].shape == (12,)
    assert kept.figures["accuracy"].mean() == record.primary.value
    assert kept.groups.shape == (12, 3)


def test_a_finished_cell_is_not_run_again_and_a_failed_one_is(run_all: RunAll) -> None:
    first = run_all("centroid", "faulty")
    watcher = Watching()
    second = run_all("centroid", "faulty", watcher=watcher)
    assert watcher.started == ["faulty"]
    assert watcher.done == [("centroid", True), ("faulty", False)]
    assert second[0] == first[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset_fingerprint": "0" * 64},
        {"machine": {"kind": "cuda"}},
        {"environment": {"torch": "1.0"}},
        {"environment": {"code": {"algorithm": "0" * 16}}},
        {"environment": {"code": {"dataset": "0" * 16}}},
        {"environment": {"code": {"backbone": "0" * 16}}},
        {"environment": {"identity": 1}},
    ],
)
def test_a_record_of_another_origin_is_not_kept(run_all: RunAll, tmp_path: Path, changes: dict[str, Any]) -> None:
    (first,) = run_all("centroid")
    store = Store(tmp_path / "out")
    content = first.model_dump()
    for key, value in changes.items():
        content[key] = merged(content[key], value)
    store.write(Record.model_validate(content), store.episodes(first))
    watcher = Watching()
    (again,) = run_all("centroid", watcher=watcher)
    assert watcher.done == [("centroid", False)]
    assert again.primary == first.primary
    assert again.environment == first.environment
    assert again.machine == first.machine
    assert again.dataset_fingerprint == first.dataset_fingerprint


def test_a_record_without_its_episodes_is_not_kept(run_all: RunAll, tmp_path: Path) -> None:
    (record,) = run_all("centroid")
    (tmp_path / "out" / "cells" / f"{record.cell}.npz").unlink()
    watcher = Watching()
    run_all("centroid", watcher=watcher)
    assert watcher.done == [("centroid", False)]


def merged(old: object, new: object) -> object:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


def test_an_interrupted_run_keeps_finished_cells(run_all: RunAll, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_all("centroid", "relative", watcher=Stopping(1))
    store = Store(tmp_path / "out")
    assert [record.algorithm for record in store.records()] == ["centroid"]
    watcher = Watching()
    run_all("centroid", "relative", watcher=watcher)
    assert watcher.done == [("centroid", True), ("relative", False)]
    assert watcher.phases[0] == ("train", 8, 1)
    assert not list((tmp_path / "out" / "checkpoints").glob("*"))


class Stopping(Watching):
    """Asks to stop after `finished` cells."""

    def __init__(self, finished: int) -> None:
        super().__init__()
        self._finished = finished

    def should_stop(self) -> bool:
        return len(self.done) >= self._finished


@pytest.fixture
def order(data: LoadedDataset, everything: PluginManager, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the algorithms in the order in which their cells start; jobs run in this process."""
    order: list[str] = []

    class InThisProcess:
        def __init__(
            self, jobs: Any, output: Path, options: RunOptions, started: Any, retried: Any, expected: Any
        ) -> None:
            self.jobs, self.started, self.options = jobs, started, options

        def events(self) -> Any:
            for job in self.jobs:
                order.append(job.training.algorithm.label)
            here = [replace(job, datasets={"blots": data}, plugins=everything) for job in self.jobs]
            return driver.in_this_process(here, self.started)

    monkeypatch.setattr(driver, "Dispatch", InThisProcess)
    return order


@pytest.fixture
def run_two_at_once(tmp_path: Path, data: LoadedDataset, everything: PluginManager) -> Callable[..., list[Record]]:
    """Return a function that runs cells with ``--jobs 2``."""

    def run(suite: Suite, cells: list[Cell], expected: Mapping[str, float], fresh: bool = False) -> list[Record]:
        options, store, prints = RunOptions(jobs=2, fresh=fresh), Store(tmp_path / "out"), {"blots": data.fingerprint}
        work = FewShotWork(suite, cells, cells, prints, CPU, everything, store, {}, {}, options, expected=expected)
        return run_work(work, everything, store, Watching(), options)

    return run


def test_cells_that_share_a_training_are_ordered_by_their_total_time(
    order: list[str], run_two_at_once: Callable[..., list[Record]], cells_of: Plan
) -> None:
    suite, cells = cells_of("fading", "centroid", "relative", text=in_shots(1, 2))
    seconds = {"fading": 1.0, "centroid": 2.0, "relative": 1.5}
    run_two_at_once(suite, cells, {cell.id: seconds[cell.algorithm.label] for cell in cells})
    assert order == ["centroid", "relative", "fading"]


def test_with_several_jobs_the_longest_training_starts_first(
    order: list[str], run_two_at_once: Callable[..., list[Record]], cells_of: Plan
) -> None:
    suite, cells = cells_of("centroid", "fading", "relative")
    records = run_two_at_once(suite, cells, dict(zip((cell.id for cell in cells), (1.0, 3.0, 2.0), strict=True)))
    assert order == ["fading", "relative", "centroid"]
    assert [record.algorithm for record in records] == ["centroid", "fading", "relative"], "in the suite's order"
    order.clear()
    run_two_at_once(suite, cells, {}, fresh=True)
    assert order == ["centroid", "fading", "relative"], "the suite's order if the times are unknown"


# --------------------------------------------------------------------------- cells that share a training

#: Trained in episodes of one shape, and tested in 1, 2 and 3 shots.
SHARED = REAL.replace("shots: [2]", "shots: [1, 2, 3]").replace("train: {{", "train: {{shot: 2, ")


def metrics(record: Record) -> dict[str, Any]:
    """Return the record without times and memory."""
    fields = record.model_dump(exclude={"finished", "eval", "peak_memory_bytes", "circumstances"})
    assert fields["train"].pop("seconds") > 0
    assert fields["train"].pop("episodes_per_second") > 0
    assert fields["train"].pop("usage")["cpu_seconds"] > 0
    return fields


@pytest.mark.parametrize("name", ["maml", "reptile", "protonet", "matchingnet", "siamese"])
def test_cells_that_differ_in_shots_train_once_with_the_results_of_separate_runs(
    run_all: RunAll, tmp_path: Path, name: str
) -> None:
    watcher = Watching()
    together = run_all(name, text=SHARED, watcher=watcher)
    validated = [(f"validate {shot}-shot", 5, 0) for shot in (1, 2, 3)]
    assert watcher.phases[:5] == [("train", 7, 0), *validated, ("train", 7, 3)]
    assert watcher.phases.count(("train", 7, 0)) == 1
    assert watcher.phases.count(("train", 7, 7)) == 1, "the end of the training"
    assert len({record.train and record.train.seconds for record in together}) == 1
    alone = [record for shot in (3, 1, 2) for record in run_all(name, text=SHARED, output="alone", shots=[shot])]
    for record, separate in zip(together, sorted(alone, key=lambda record: record.shot), strict=True):
        assert metrics(record) == metrics(separate)
        episodes = [Store(tmp_path / output).episodes(record).figures["accuracy"] for output in ("out", "alone")]
        assert episodes[0].tolist() == episodes[1].tolist()
    assert not checkpoints(tmp_path)


def checkpoints(folder: Path) -> list[Path]:
    return list((folder / "out" / "checkpoints").glob("*"))


def in_shots(*shots: int) -> str:
    return SUITE.replace("shots: [2]", f"shots: {list(shots)}").replace("train: {{", "train: {{shot: 2, ")


def test_each_cell_is_tested_with_the_best_weights_for_its_shots(run_all: RunAll) -> None:
    records = run_all("shotwise", text=in_shots(1, 2))
    assert [record.train and record.train.best_step for record in records] == [4, 8]
    assert [record.primary and record.primary.value for record in records] == [1.0, 1.0]


def test_cells_that_share_a_training_record_its_peak_memory(run_all: RunAll, monkeypatch: pytest.MonkeyPatch) -> None:
    class Falling:
        peaks = iter([3000])

        def __init__(self, device: torch.device) -> None:
            self._peak = next(self.peaks)

        def bytes(self) -> int:
            return self._peak

    monkeypatch.setattr("metabench.engine.learner.PeakMemory", Falling)
    assert [record.peak_memory_bytes for record in run_all("centroid", text=in_shots(1, 2, 3))] == [3000] * 3


def test_an_interrupted_shared_training_resumes(run_all: RunAll, tmp_path: Path) -> None:
    undisturbed = run_all("protonet", text=SHARED, output="undisturbed")
    first_phases = []
    for phase, after in (("train", 2), ("validate 1-shot", 3), ("validate 2-shot", 3), ("test", 5), ("none", 0)):
        watcher = Watching(phase, after)
        with nullcontext() if phase == "none" else pytest.raises(Interrupted):
            records = run_all("protonet", text=SHARED, watcher=watcher)
        first_phases.append(next(phase for phase in watcher.phases if phase[0] != "embed test"))
    assert first_phases == [*(("train", 7, step) for step in (0, 2, 3, 3)), ("calibrate", 5, 0)]
    assert [metrics(record) for record in records] == [metrics(record) for record in undisturbed]
    assert not checkpoints(tmp_path)


def test_a_training_does_not_depend_on_the_cells_that_are_asked_for_first(run_all: RunAll, tmp_path: Path) -> None:
    undisturbed = run_all("protonet", text=SHARED, output="undisturbed")
    with pytest.raises(Interrupted):
        run_all("protonet", text=SHARED, shots=[2], watcher=Watching("train", 5))
    watcher = Watching()
    run_all("protonet", text=SHARED, shots=[1], watcher=watcher)
    assert watcher.phases[0] == ("train", 7, 5), "it validates for all shots of the suite from the first step on"
    watcher = Watching()
    records = run_all("protonet", text=SHARED, watcher=watcher)
    assert [name for name, _, _ in watcher.phases if name == "train"] == [], "its weights are kept"
    assert [metrics(record) for record in records] == [metrics(record) for record in undisturbed]
    assert not checkpoints(tmp_path)


def test_a_damaged_checkpoint_of_finished_cells_is_ignored(run_all: RunAll, tmp_path: Path, cells_of: Plan) -> None:
    (record,) = run_all("centroid")
    _, (cell,) = cells_of("centroid")
    checkpoint = TrainingFiles(tmp_path / "out", cell.training.id).checkpoint
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_bytes(b"words")
    assert run_all("centroid") == [record]


@pytest.mark.parametrize("shots", [(1, 2), (2, 1)])
def test_a_cell_that_cannot_be_validated_fails_alone(run_all: RunAll, tmp_path: Path, shots: tuple[int, int]) -> None:
    records = run_all("shortsighted", text=in_shots(*shots))
    assert {record.shot: record.status for record in records} == {1: "failed", 2: "ok"}
    assert not checkpoints(tmp_path)


def test_a_class_edited_during_a_run_counts_from_the_next_training_on(
    run_all: RunAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watching()

    def code_of(cell: Cell, plugins: PluginManager) -> Code:
        return Code({}, {"algorithm": f"edited {len(watcher.done)} times"})

    monkeypatch.setattr("metabench.executors.job.code_of", code_of)
    records = run_all("centroid", "relative", watcher=watcher)
    assert [record.environment["code"]["algorithm"] for record in records] == ["edited 0 times", "edited 1 times"]


def test_fresh_trains_a_shared_training_once(run_all: RunAll) -> None:
    first = run_all("centroid", text=SHARED)
    with pytest.raises(Interrupted):
        run_all("centroid", text=SHARED, fresh=True, watcher=Watching("train", 5))
    watcher = Watching()
    again = run_all("centroid", text=SHARED, fresh=True, watcher=watcher)
    assert watcher.phases.count(("train", 7, 0)) == 1
    assert len(first) == len(again) == 3


def test_a_training_that_fails_fails_every_cell_that_shares_it(
    run_all: RunAll, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metabench.engine.checkpoints.CheckpointClock.is_due", True)
    watcher = Watching()
    records = run_all("diverging", text=in_shots(1, 2).replace("steps: 8", "steps: 20"), watcher=watcher)
    assert [record.status for record in records] == ["failed", "failed"]
    assert watcher.phases.count(("train", 20, 0)) == 1, "it is tried once"
    assert records[0].error == records[1].error


def test_a_checkpoint_of_finished_cells_is_deleted(run_all: RunAll, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_all("centroid", text=SHARED, watcher=Watching("train", 5))
    (left,) = checkpoints(tmp_path)
    content = left.read_bytes()
    run_all("centroid", text=SHARED)
    left.write_bytes(content)  # as if the run had been killed before deleting it
    run_all("centroid", text=SHARED)
    assert not checkpoints(tmp_path)


def test_cells_that_share_a_training_follow_one_another(run_all: RunAll) -> None:
    watcher = Watching()
    records = run_all("centroid", "relative", text=in_shots(1, 2), watcher=watcher)
    assert watcher.started == ["centroid", "centroid", "relative", "relative"]
    assert [record.algorithm for record in records] == ["centroid", "relative", "centroid", "relative"]


def test_images_are_moved_to_the_device_once_for_all_cells(
    cells_of: Plan, everything: PluginManager, tmp_path: Path
) -> None:
    _, cells = cells_of("centroid", "relative", text=in_shots(1, 2))
    device = torch.device("meta")
    roots = DataRoots((), tmp_path)
    datasets = load_datasets(cells, everything, roots, device, lambda: nullcontext(lambda done, total, what: None))
    (dataset,) = datasets.values()
    rows = [split.rows for split in dataset.splits.values()]
    assert all(isinstance(of_split, TensorRows) and of_split.device == device for of_split in rows)
    assert rows[0].to(device) is rows[0], "a stream of episodes copies nothing"
