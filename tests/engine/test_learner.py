from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from metabench.engine.checkpoints import CheckpointClock
from metabench.engine.learner import build_tested, make_learner
from metabench.engine.outcome import Outcome
from metabench.engine.progress import Interrupted
from metabench.engine.streams import evaluation_stream, training_stream
from metabench.errors import CellFailed, StoreError
from metabench.executors.loading import LoadedDataset
from metabench.planning.cells import Cell
from metabench.planning.suite import Suite
from metabench.registry.manager import PluginManager
from tiny import CPU, REAL, SUITE, Centroid, Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

Plan = Callable[..., tuple[Suite, list[Cell]]]

BUILT_IN = ["maml", "reptile", "protonet", "matchingnet", "siamese"]


Run = Callable[..., Outcome]


def essence(outcome: Outcome) -> dict[str, Any]:
    """Return the results that must not depend on interruptions of the run."""
    return {
        "accuracies": outcome.episodes.figures["accuracy"].tolist(),
        "accuracy": outcome.primary,
        "inductive_accuracy": outcome.inductive_accuracy,
        "groups": outcome.episodes.groups.tolist(),
        "worst_classes": outcome.worst_classes,
        "picture": outcome.picture,
        "flops": outcome.flops_per_episode,
        "validation": outcome.train.validation,
        "best_step": outcome.train.best_step,
        "episodes": outcome.train.episodes,
        "transductive": outcome.transductive,
        "parameters": outcome.parameters,
    }


# --------------------------------------------------------------------------------------- the usual outcome


def test_a_cell_has_all_metrics(run: Run) -> None:
    watcher = Watching()
    outcome = run("centroid", watcher=watcher)
    assert outcome.episodes.figures["accuracy"].shape == (12,)
    assert outcome.primary.value == outcome.episodes.figures["accuracy"].mean() == 1.0
    assert outcome.primary.episodes == 12
    assert (outcome.train.steps, outcome.train.episodes) == (8, 16)
    assert [point.step for point in outcome.train.validation] == [2, 4, 6, 8]
    assert outcome.parameters == 1
    assert outcome.peak_memory_bytes > 2**20
    assert min(outcome.train.seconds, outcome.train.episodes_per_second, outcome.eval.seconds) > 0
    assert 0 < outcome.eval.latency_ms.p50 <= outcome.eval.latency_ms.p95
    validated = [phase for step in (2, 4, 6, 8) for phase in (("validate", 5, 0), ("train", 8, step))]
    tests = [("calibrate", 5, 0), ("test", 12, 0), ("test with shuffled labels", 50, 0)]
    assert watcher.phases == [("train", 8, 0), *validated, *tests]


def test_a_run_restores_the_random_state_of_its_caller(run: Run) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run("siamese", text=REAL)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_change_the_training_but_not_the_test_episodes(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager, tmp_path: Path
) -> None:
    _, cells = cells_of("protonet", text=REAL.replace("queries: 4", "queries: 4\nseeds: [0, 1]"))
    tests = [evaluation_stream(cell, data.splits, CPU).batch(0, 3).query_x for cell in cells]
    trains = [training_stream(cell.training, data.splits, CPU).batch(0, 3).query_x for cell in cells]
    assert torch.equal(*tests)
    assert not torch.equal(*trains)
    weights = [next(build_tested(cell, data.splits, CPU, everything).parameters()) for cell in cells]
    assert not torch.equal(*weights)


def test_all_algorithms_are_tested_on_the_same_episodes(cells_of: Plan, data: LoadedDataset) -> None:
    _, cells = cells_of(*BUILT_IN, text=REAL)
    batches = [evaluation_stream(cell, data.splits, CPU).batch(4, 2) for cell in cells]
    for batch in batches[1:]:
        assert torch.equal(batch.support_x, batches[0].support_x)
        assert torch.equal(batch.query_x, batches[0].query_x)
        assert torch.equal(batch.query_y, batches[0].query_y)


# ------------------------------------------------------------------------------------------- the checkpoint


def test_the_weights_with_the_best_validation_are_tested(run: Run) -> None:
    outcome = run("fading")
    curve = [(point.step, point.value) for point in outcome.train.validation]
    assert curve[:2] == [(2, 1.0), (4, 1.0)]
    assert all(value < 0.5 for _, value in curve[2:])
    assert outcome.train.best_step == 4, "the later of two equals"
    # The last step would classify every test episode correctly: the test did not choose the weights.
    assert outcome.primary.value < 0.5


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_interrupted_run_has_the_same_results_after_resuming(run: Run, name: str, tmp_path: Path) -> None:
    undisturbed = essence(run(name, text=REAL, name="undisturbed"))
    assert [point.step for point in undisturbed["validation"]] == [3, 6, 7]
    for phase, after in (("train", 1), ("train", 3), ("train", 5), ("train", 7), ("test", 5)):
        with pytest.raises(Interrupted):
            run(name, text=REAL, watcher=Watching(phase, after))
        watcher = Watching()
        if after in (1, 3):
            continue  # interrupt it once more before it ends
        resumed = essence(run(name, text=REAL, watcher=watcher))
        # An interrupted test has the kept weights; its split may be embedded again.
        first = next(phase for phase in watcher.phases if phase[0] != "embed test")
        assert first == (("train", 7, after) if phase == "train" else ("calibrate", 5, 0))
        assert resumed == undisturbed
        shutil.rmtree(tmp_path / "checkpoint")


def test_a_run_resumes_at_the_interrupted_step(run: Run) -> None:
    with pytest.raises(Interrupted):
        run("centroid", watcher=Watching("train", 5))
    watcher = Watching()
    run("centroid", watcher=watcher)
    assert watcher.phases[0] == ("train", 8, 5)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_step_with_several_threads_is_deterministic(
    name: str, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name, text=REAL)
    batch = training_stream(cell.training, data.splits, CPU).batch(0, 1)
    results = []
    torch.set_num_threads(2)
    for _ in range(6 if name == "siamese" else 3):  # siamese gathers rows, whose gradient is the likeliest to differ
        algorithm = build_tested(cell, data.splits, CPU, everything)
        algorithm.train_step(batch)
        results.append(torch.cat([weight.detach().flatten() for weight in algorithm.parameters()]))
    assert [torch.equal(weights, results[0]) for weights in results] == [True] * len(results)


def test_a_checkpoint_of_other_code_is_renamed_and_not_overwritten(
    cells_of: Callable[..., tuple[Suite, list[Cell]]], data: LoadedDataset, everything: PluginManager, tmp_path: Path
) -> None:
    _, (cell,) = cells_of("centroid")
    training = cell.training
    for code in ("one", "two", "one"):
        stop = Watching("train", 4)
        with pytest.raises(Interrupted):
            make_learner(
                training,
                [cell.selection],
                {cell.dataset.label: data},
                CPU,
                everything,
                tmp_path,
                stop,
                {"algorithm": code},
            )
        assert stop.phases[0] == ("train", 8, 0), "no step of other code is resumed"
    names = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.stem != training.id]
    assert len(names) == 2
    assert all(name.startswith(f"{training.id}.other-code-") for name in names)


def test_weights_of_other_code_are_moved_and_not_overwritten(
    cells_of: Callable[..., tuple[Suite, list[Cell]]], data: LoadedDataset, everything: PluginManager, tmp_path: Path
) -> None:
    _, (cell,) = cells_of("centroid")
    for code in ("one", "two", "two"):
        watcher = Watching()
        make_learner(
            cell.training,
            [cell.selection],
            {cell.dataset.label: data},
            CPU,
            everything,
            tmp_path,
            watcher,
            {"algorithm": code},
        )
    assert watcher.phases == [], "the weights of the same code are taken"
    (aside,) = (path for path in (tmp_path / "weights").iterdir() if path.is_dir())
    assert aside.name.startswith("other-code-")
    kept = {path.name for path in (tmp_path / "weights").iterdir() if path.is_file()}
    assert kept == {path.name for path in aside.iterdir()}


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_named_with_advice(run: Run, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Interrupted):
        run("centroid", watcher=Watching("train", 4))
    (checkpoint,) = tmp_path.glob("checkpoint/checkpoints/*.pt")
    checkpoint.write_bytes(content)
    with pytest.raises(StoreError, match=r"checkpoint .*\.pt cannot be used(.|\n)*--fresh"):
        run("centroid")


def test_an_unwritable_checkpoint_is_an_error(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(StoreError, match=r"cannot write .*\.pt: No space left.*--output"):
            run("centroid", watcher=Watching("train", 4))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*\.safetensors: No space left.*--output"):
        run("centroid")
    assert not list(tmp_path.glob("checkpoint/weights/*"))
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".pt", ".tmp")] == []


# ----------------------------------------------------------------------------------------------- failures


def test_a_loss_that_is_not_finite_fails_the_cell_with_its_step(run: Run) -> None:
    long = SUITE.replace("steps: 8", "steps: 40").replace("validate_every: 2", "validate_every: 40")
    with pytest.raises(CellFailed, match=r"the loss is nan after step (1[2-9]|20) of 40.*learning rate"):
        run("diverging", text=long)


@pytest.mark.parametrize(
    ("metrics", "returned"),
    [
        (None, "None"),
        ({}, "{}"),
        ({"loss": "low"}, "{'loss': 'low'}"),
        ({"loss": 0.5}, "{'loss': 0.5}"),
        ({"loss": torch.zeros(2)}, "(2,) tensor"),
    ],
)
def test_a_step_without_a_loss_fails_the_cell_with_what_came(
    run: Run, monkeypatch: pytest.MonkeyPatch, metrics: object, returned: str
) -> None:
    monkeypatch.setattr(Centroid, "train_step", lambda self, episodes: metrics)
    with pytest.raises(CellFailed, match=re.escape(f"a scalar tensor}}; it returned {returned}")):
        run("centroid")


def test_a_score_that_is_not_finite_fails_the_cell(run: Run) -> None:
    with pytest.raises(CellFailed, match="a prediction is not finite"):
        run("blank")


@pytest.mark.parametrize("name", ["greedy", "greedypython", "greedygpu"])
def test_out_of_memory_names_the_settings_to_lower(run: Run, name: str) -> None:
    with pytest.raises(CellFailed) as caught:
        run(name)
    message = str(caught.value)
    assert message.startswith("out of memory in training: lower ")
    for part in ("train.meta_batch (2)", "train.way (3)", "train.queries (4)", "(pixels)"):
        assert part in message


# ----------------------------------------------------------------------------------- when checkpoints are due


class Time:
    """A clock that tests set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("metabench.engine.checkpoints.time.monotonic", lambda: self.now)

    def write(self, clock: CheckpointClock, seconds: float) -> None:
        with clock.writing():
            self.now += seconds

    def due_after(self, clock: CheckpointClock) -> int:
        """Return the seconds until a checkpoint is due, rounded up."""
        start = self.now
        while not clock.is_due:
            self.now += 1
        return round(self.now - start)


def test_the_first_checkpoint_is_due_early(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    assert time.due_after(CheckpointClock()) == 2


@pytest.mark.parametrize(("writing", "due"), [(0.0, 10), (0.4, 10), (1.0, 20), (5.0, 100), (60.0, 300)])
def test_checkpoints_take_a_twentieth_of_the_time_and_come_every_five_minutes(
    monkeypatch: pytest.MonkeyPatch, writing: float, due: int
) -> None:
    time = Time(monkeypatch)
    clock = CheckpointClock()
    time.write(clock, writing)
    assert time.due_after(clock) == due


def test_a_training_that_is_killed_repeatedly_advances(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed in the fourth step of each run; the first checkpoint is due after two steps."""
    now = [0.0]
    monkeypatch.setattr("metabench.engine.checkpoints.time.monotonic", lambda: now[0])

    class Killed(Watching):
        def advance(self, done: int, note: str = "") -> None:
            super().advance(done, note)
            now[0] += 0.5  # `advance` is called in the step and after it
            if now[0] - start >= 4:
                raise KeyboardInterrupt  # not caught, so that no checkpoint is written

    steps = []
    for _ in range(4):
        start = now[0]
        watcher = Killed()
        with suppress(KeyboardInterrupt):
            run(
                "centroid",
                SUITE.replace("steps: 8", "steps: 20").replace("validate_every: 2", "validate_every: 20"),
                watcher,
            )
        steps.append(watcher.phases[0][2])
    assert steps[0] == 0
    assert steps == sorted(set(steps)), "each run starts at a later step than the one before"
