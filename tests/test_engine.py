from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metabench import api
from metabench.engine import (
    Interrupted,
    Outcome,
    accuracy,
    build,
    evaluate,
    evaluation_stream,
    is_transductive,
    run_cell,
    training_stream,
)
from metabench.errors import CellFailed, StoreError
from metabench.executors import LoadedDataset, run_cells
from metabench.packs import Pack
from metabench.plan import Cell, make_plan
from metabench.plugins import PluginManager
from metabench.record import Record
from metabench.specs import AlgorithmSpec, BackboneSpec, DatasetSpec, hookimpl
from metabench.store import Store
from metabench.suite import Suite, SuiteFile, resolve

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
BUILT_IN = ["maml", "reptile", "protonet", "matchingnet", "siamese"]

# ------------------------------------------------------------------------------------ tiny things to run


@pytest.fixture(autouse=True)
def few_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time few episodes: how fast they are is not what these tests are about."""
    monkeypatch.setattr("metabench.engine.LATENCY_EPISODES", 2)


class Blots(api.Dataset):
    """18 classes of 8 images of 16×16, six for each split; the first pixel says which split it is."""

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        rng = np.random.Generator(np.random.PCG64(0))
        classes = rng.integers(0, 200, (18, 1, 1, 16, 16))
        images = (classes + rng.integers(0, 56, (18, 8, 1, 16, 16))).reshape(144, 1, 16, 16)
        images[:, 0, 0, 0] = np.repeat([0, 120, 240], 48)
        return Pack(images.astype(np.uint8), np.arange(19) * 8, tuple(f"blot {i}" for i in range(18)))

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        return {
            name: api.Split(torch.tensor(pack.images[48 * i : 48 * i + 48]), torch.arange(7) * 8, ("",) * 6)
            for i, name in enumerate(("train", "val", "test"))
        }


def is_test(x: Tensor) -> bool:
    return float(x[..., 0, 0].mean()) > 0.8


class Pixels(api.Backbone):
    """The pixels themselves."""

    def __init__(self, config: Any, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        self.features = int(np.prod(image_shape))

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return x.flatten(1)


class Centroid(api.Algorithm):
    """The nearest class mean; a step only counts."""

    def __init__(self, config: Any, setup: api.Setup) -> None:
        super().__init__(config, setup)
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def meta_step(self, episodes: api.Episodes) -> api.Metrics:
        self.steps += 1
        return {"loss": self.loss(int(self.steps))}

    def loss(self, step: int) -> Tensor:
        return torch.tensor(1.0 / step)

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        scores = []
        for x, y, queries in zip(support_x.flatten(2), support_y, query_x.flatten(2), strict=True):
            means = torch.stack([x[y == label].mean(0) for label in range(way)])
            scores.append(-(queries.unsqueeze(1) - means).square().sum(-1))
        return torch.stack(scores) * self.weight


class Fading(Centroid):
    """Right until step 4 and wrong after that on validation episodes; on test episodes, the other way round."""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        right = (int(self.steps) <= 4) != is_test(query_x)
        return super().predict(support_x, support_y, query_x, way) * (1 if right else -1)


class Diverging(Centroid):
    """Loses its way at step 12."""

    def loss(self, step: int) -> Tensor:
        return torch.tensor(float("nan") if step >= 12 else 1.0)


class Blank(Centroid):
    """Predicts nothing in particular."""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        return super().predict(support_x, support_y, query_x, way) * torch.tensor(float("nan"))


class Greedy(Centroid):
    """Asks for more memory than there is anywhere."""

    def loss(self, step: int) -> Tensor:
        return torch.empty(2**60, dtype=torch.uint8).sum()


class GreedyPython(Centroid):
    """Asks Python for it."""

    def loss(self, step: int) -> Tensor:
        raise MemoryError


class GreedyGpu(Centroid):
    """Asks the GPU for it."""

    def loss(self, step: int) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")


class Faulty(Centroid):
    """Has a bug."""

    def loss(self, step: int) -> Tensor:
        raise KeyError("a bug of the plugin")


class Relative(Centroid):
    """Scores relative to those of the other queries: transductive."""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        scores = super().predict(support_x, support_y, query_x, way)
        return scores - scores.mean(dim=1, keepdim=True)


class Constant(Centroid):
    """Has no opinion."""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        return torch.zeros(*query_x.shape[:2], way)


TINY = [Centroid, Fading, Diverging, Blank, Greedy, GreedyPython, GreedyGpu, Faulty, Relative, Constant]


class Plugin:
    """Announces all of them."""

    @hookimpl
    def metabench_algorithms(self) -> list[AlgorithmSpec]:
        return [AlgorithmSpec(cls.__name__.lower(), f"{__name__}:{cls.__name__}", "") for cls in TINY]

    @hookimpl
    def metabench_backbones(self) -> list[BackboneSpec]:
        return [BackboneSpec("pixels", f"{__name__}:Pixels", "")]

    @hookimpl
    def metabench_datasets(self) -> list[DatasetSpec]:
        return [DatasetSpec("blots", f"{__name__}:Blots", "")]


PLUGIN = Plugin()


@pytest.fixture(scope="module")
def everything() -> PluginManager:
    """Return the built-ins, and the tiny things of this module."""
    return PluginManager([*entry_points(group="metabench"), EntryPoint("tiny", f"{__name__}:PLUGIN", "metabench")])


@pytest.fixture(scope="module")
def data() -> LoadedDataset:
    dataset = Blots(api.Config())
    pack = dataset.pack(None, lambda done, total, what: None)  # type: ignore[arg-type]
    return LoadedDataset(dataset.split(pack), pack.fingerprint)


SUITE = """\
name: tiny
datasets: {{blots: {{}}}}
backbones: {{pixels: {{}}}}
ways: [3]
shots: [2]
queries: 4
train: {{steps: 8, meta_batch: 2, validate_every: 2, validation_episodes: 5}}
eval: {{episodes: 12, batch: 5}}
algorithms: {{{algorithms}}}
"""

#: The built-ins at their smallest, on a network that they can train.
REAL = (
    SUITE.replace("pixels: {{}}", "conv4: {{params: {{channels: 4}}}}")
    .replace("steps: 8", "steps: 7")
    .replace("validate_every: 2", "validate_every: 3")
)
PARAMS = {
    "reptile": "inner_steps: 2, test_inner_steps: 2",
    "siamese": "pairs: 16, distortion: 0.5",
    "protonet": "halve_lr_every: 3",
}


@pytest.fixture
def cells_of(
    suite_file: Callable[[str], SuiteFile], everything: PluginManager
) -> Callable[..., tuple[Suite, list[Cell]]]:
    """Return a function that plans a suite of these algorithms."""

    def plan(*algorithms: str, text: str = SUITE) -> tuple[Suite, list[Cell]]:
        entries = ", ".join(f"{name}: {{params: {{{PARAMS.get(name, '')}}}}}" for name in algorithms)
        suite, file = resolve(suite_file(text.format(algorithms=entries)))
        return suite, make_plan(suite, file, everything)

    return plan


Plan = Callable[..., tuple[Suite, list[Cell]]]


class Watching:
    """Sees everything; asks to stop once `stop_after` of the phase `stop_in` is done."""

    def __init__(self, stop_in: str = "", stop_after: int = 0) -> None:
        self.stop = (stop_in, stop_after)
        self.phases: list[tuple[str, int, int]] = []
        self.started: list[str] = []
        self.done: list[tuple[str, bool]] = []
        self._reached = False

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.phases.append((name, total, done))

    def advance(self, done: int, note: str = "") -> None:
        name, _, _ = self.phases[-1]
        self._reached = self._reached or (name == self.stop[0] and done >= self.stop[1])

    def should_stop(self) -> bool:
        return self._reached

    def cell_started(self, cell: Cell, number: int, of: int) -> None:
        self.started.append(cell.algorithm.label)

    def cell_done(self, record: Record, kept: bool) -> None:
        self.done.append((record.algorithm, kept))


@pytest.fixture
def run(tmp_path: Path, data: LoadedDataset, everything: PluginManager, cells_of: Plan) -> Callable[..., Outcome]:
    """Return a function that runs one algorithm's cell."""

    def start(algorithm: str, text: str = SUITE, watcher: Watching | None = None, name: str = "checkpoint") -> Outcome:
        _, (cell,) = cells_of(algorithm, text=text)
        return run_cell(cell, data.splits, CPU, everything, tmp_path / f"{name}.pt", watcher or Watching())

    return start


Run = Callable[..., Outcome]


def essence(outcome: Outcome) -> dict[str, Any]:
    """Return what must not depend on when and how often a run was cut."""
    return {
        "accuracies": outcome.accuracies.tolist(),
        "accuracy": outcome.accuracy,
        "validation": outcome.train.validation,
        "best_step": outcome.train.best_step,
        "episodes": outcome.train.episodes,
        "transductive": outcome.transductive,
        "parameters": outcome.parameters,
    }


# --------------------------------------------------------------------------------------- the usual outcome


def test_a_cell_yields_all_its_figures(run: Run) -> None:
    watcher = Watching()
    outcome = run("centroid", watcher=watcher)
    assert outcome.accuracies.shape == (12,)
    assert outcome.accuracy.mean == outcome.accuracies.mean() == 1.0
    assert outcome.accuracy.episodes == 12
    assert (outcome.train.steps, outcome.train.episodes) == (8, 16)
    assert [point.step for point in outcome.train.validation] == [2, 4, 6, 8]
    assert outcome.parameters == 1
    assert outcome.peak_memory_bytes > 2**20
    assert min(outcome.train.seconds, outcome.train.episodes_per_second, outcome.eval.seconds) > 0
    assert 0 < outcome.eval.latency_ms.p50 <= outcome.eval.latency_ms.p95
    validated = [phase for step in (2, 4, 6, 8) for phase in (("validate", 5, 0), ("train", 8, step))]
    assert watcher.phases == [("train", 8, 0), *validated, ("test", 12, 0)]


def test_a_run_leaves_the_random_numbers_of_its_caller_alone(run: Run) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run("siamese", text=REAL)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_seeds_train_otherwise_and_are_tested_alike(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager, tmp_path: Path
) -> None:
    _, cells = cells_of("protonet", text=REAL.replace("queries: 4", "queries: 4\nseeds: [0, 1]"))
    tests = [evaluation_stream(cell, data.splits, CPU).batch(0, 3).query_x for cell in cells]
    trains = [training_stream(cell, data.splits, CPU).batch(0, 3).query_x for cell in cells]
    assert torch.equal(*tests)
    assert not torch.equal(*trains)
    weights = [next(build(cell, (1, 16, 16), CPU, everything).parameters()) for cell in cells]
    assert not torch.equal(*weights)


def test_all_algorithms_are_tested_on_the_same_episodes(cells_of: Plan, data: LoadedDataset) -> None:
    _, cells = cells_of(*BUILT_IN, text=REAL)
    batches = [evaluation_stream(cell, data.splits, CPU).batch(4, 2) for cell in cells]
    for batch in batches[1:]:
        assert torch.equal(batch.support_x, batches[0].support_x)
        assert torch.equal(batch.query_x, batches[0].query_x)
        assert torch.equal(batch.query_y, batches[0].query_y)


# ------------------------------------------------------------------------------------------- the checkpoint


def test_what_is_tested_is_the_checkpoint_that_validated_best(run: Run) -> None:
    outcome = run("fading")
    curve = [(point.step, point.accuracy) for point in outcome.train.validation]
    assert curve[:2] == [(2, 1.0), (4, 1.0)]
    assert all(value < 0.5 for _, value in curve[2:])
    assert outcome.train.best_step == 4, "the later of two equals"
    # The last step would have been right in every test episode: the test must have had no say.
    assert outcome.accuracy.mean < 0.5


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_run_that_was_cut_ends_as_if_it_had_not_been(run: Run, name: str, tmp_path: Path) -> None:
    undisturbed = essence(run(name, text=REAL, name="undisturbed"))
    assert [point.step for point in undisturbed["validation"]] == [3, 6, 7]
    for phase, after in (("train", 1), ("train", 3), ("train", 5), ("train", 7), ("test", 5)):
        with pytest.raises(Interrupted):
            run(name, text=REAL, watcher=Watching(phase, after))
        watcher = Watching()
        if after in (1, 3):
            continue  # the next one is cut again
        found = essence(run(name, text=REAL, watcher=watcher))
        assert watcher.phases[0] == ("train", 7, after if phase == "train" else 7)
        assert found == undisturbed
        (tmp_path / "checkpoint.pt").unlink()


def test_a_run_goes_on_from_where_it_was_cut(run: Run) -> None:
    with pytest.raises(Interrupted):
        run("centroid", watcher=Watching("train", 5))
    watcher = Watching()
    run("centroid", watcher=watcher)
    assert watcher.phases[0] == ("train", 8, 5)


@pytest.mark.parametrize("name", BUILT_IN)
def test_several_threads_make_the_same_step_every_time(
    name: str, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name, text=REAL)
    batch = training_stream(cell, data.splits, CPU).batch(0, 1)
    found = []
    torch.set_num_threads(2)
    for _ in range(6 if name == "siamese" else 3):  # one that gathers rows is the likeliest to go wrong
        algorithm = build(cell, (1, 16, 16), CPU, everything)
        algorithm.meta_step(batch)
        found.append(torch.cat([weight.detach().flatten() for weight in algorithm.parameters()]))
    assert [torch.equal(weights, found[0]) for weights in found] == [True] * len(found)


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(StoreError, match=r"checkpoint .*checkpoint\.pt cannot be used(.|\n)*--fresh"):
        run("centroid")


def test_a_checkpoint_that_cannot_be_written_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StoreError, match=r"cannot write the checkpoint .*No space left.*--output"):
        run("centroid")
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".pt", ".tmp")] == []


# ----------------------------------------------------------------------------------------------- failures


def test_a_loss_that_is_no_number_fails_the_cell_and_says_when(run: Run) -> None:
    long = SUITE.replace("steps: 8", "steps: 40").replace("validate_every: 2", "validate_every: 40")
    with pytest.raises(CellFailed, match=r"the loss is nan after step (1[2-9]|20) of 40.*learning rate"):
        run("diverging", text=long)


def test_a_score_that_is_no_number_fails_the_cell(run: Run) -> None:
    with pytest.raises(CellFailed, match="a prediction is not finite"):
        run("blank")


@pytest.mark.parametrize("name", ["greedy", "greedypython", "greedygpu"])
def test_out_of_memory_names_what_to_lower(run: Run, name: str) -> None:
    with pytest.raises(CellFailed) as caught:
        run(name)
    message = str(caught.value)
    assert message.startswith("out of memory: lower ")
    for part in ("train.meta_batch (2)", "train.way (3)", "train.queries (4)", "eval.batch (5)", "(pixels)"):
        assert part in message


# ------------------------------------------------------------------------------------------------- scores


def test_ties_share_the_credit() -> None:
    scores = torch.tensor([[[1.0, 1.0, 0.0], [2.0, 2.0, 2.0], [0.0, 0.0, 3.0]]])
    assert accuracy(scores, torch.tensor([[0, 1, 2]])).tolist() == [pytest.approx((1 / 2 + 1 / 3 + 1) / 3)]
    assert accuracy(scores, torch.tensor([[2, 1, 0]])).tolist() == [pytest.approx((0 + 1 / 3 + 0) / 3)]


def test_an_algorithm_without_an_opinion_is_right_by_chance(run: Run) -> None:
    outcome = run("constant")
    np.testing.assert_allclose(outcome.accuracies, 1 / 3)
    assert outcome.transductive is False


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_must_be_finite(bad: float) -> None:
    with pytest.raises(CellFailed, match="not finite"):
        accuracy(torch.tensor([[[0.0, bad]]]), torch.tensor([[0]]))


@pytest.mark.parametrize(("name", "expected"), [("centroid", False), ("relative", True)])
def test_transduction_is_measured(
    name: str, expected: bool, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name)
    algorithm = build(cell, (1, 16, 16), CPU, everything)
    assert is_transductive(algorithm, evaluation_stream(cell, data.splits, CPU), 0) is expected


@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_only_batch_statistics_make_a_protonet_transductive(
    norm: str, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of("protonet", text=REAL.replace("channels: 4", f"channels: 4, norm: {norm}"))
    algorithm = build(cell, (1, 16, 16), CPU, everything)
    assert is_transductive(algorithm, evaluation_stream(cell, data.splits, CPU), 0) is (norm == "batch")


@pytest.mark.parametrize("name", [*BUILT_IN, "relative"])
def test_the_size_of_a_test_batch_changes_no_accuracy(
    name: str, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name, text=SUITE if name == "relative" else REAL)
    algorithm = build(cell, (1, 16, 16), CPU, everything)
    algorithm.meta_step(training_stream(cell, data.splits, CPU).batch(0, 2))
    stream = evaluation_stream(cell, data.splits, CPU)
    one = evaluate(algorithm, stream, 11, 1, 0)
    for batch in (2, 5, 11, 50):
        np.testing.assert_array_equal(evaluate(algorithm, stream, 11, batch, 0), one)


@pytest.mark.parametrize("name", BUILT_IN)
def test_testing_leaves_the_algorithm_as_it_was(
    name: str, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name, text=REAL)
    algorithm = build(cell, (1, 16, 16), CPU, everything)
    algorithm.meta_step(training_stream(cell, data.splits, CPU).batch(0, 2))
    before = copy.deepcopy((algorithm.state_dict(), algorithm.training_state()))
    evaluate(algorithm, evaluation_stream(cell, data.splits, CPU), 5, 2, 0)
    assert str(before) == str((algorithm.state_dict(), algorithm.training_state()))
    for key, value in algorithm.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(value, before[0][key]), key


# ---------------------------------------------------------------------------------------------- many cells


@pytest.fixture
def run_all(
    tmp_path: Path, data: LoadedDataset, everything: PluginManager, cells_of: Plan
) -> Callable[..., list[Record]]:
    """Return a function that runs a suite of these algorithms into one store."""

    def start(*algorithms: str, watcher: Watching | None = None) -> list[Record]:
        suite, cells = cells_of(*algorithms)
        store = Store(tmp_path / "out")
        return run_cells(suite, cells, {"blots": data}, CPU, everything, store, watcher or Watching())

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
    assert faulty.accuracy is faulty.train is faulty.eval is faulty.transductive is None
    assert first.dataset_fingerprint == data.fingerprint
    assert {record.cell for record in Store(tmp_path / "out").records()} == {first.cell, faulty.cell, last.cell}


def test_a_divergence_is_a_failed_record_without_a_traceback(run_all: RunAll, tmp_path: Path) -> None:
    (record,) = run_all("blank")
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.startswith("a prediction is not finite")
    assert [path.suffix for path in (tmp_path / "out" / "cells").iterdir()] == [".json"]


def test_a_record_says_who_provided_what(run_all: RunAll) -> None:
    (record,) = run_all("centroid")
    assert record.environment["providers"]["algorithm"] == "unknown", "an entry point of no distribution"
    assert record.environment["torch"] == torch.__version__
    assert record.environment["cuda"] is None
    assert record.identity["train"]["steps"] == 8
    assert (record.way, record.shot, record.queries) == (3, 2, 4)


def test_the_accuracy_of_every_episode_is_kept(run_all: RunAll, tmp_path: Path) -> None:
    (record,) = run_all("fading")
    kept = Store(tmp_path / "out").accuracies(record.cell)
    assert record.accuracy is not None
    assert kept.shape == (12,)
    assert kept.mean() == record.accuracy.mean


def test_a_finished_cell_is_not_run_again_and_a_failed_one_is(run_all: RunAll) -> None:
    first = run_all("centroid", "faulty")
    watcher = Watching()
    second = run_all("centroid", "faulty", watcher=watcher)
    assert watcher.started == ["faulty"]
    assert watcher.done == [("centroid", True), ("faulty", False)]
    assert second[0] == first[0]


def test_an_interrupted_run_keeps_what_is_finished(run_all: RunAll, tmp_path: Path) -> None:
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
    """Asks to stop in the cell after the first `finished`."""

    def __init__(self, finished: int) -> None:
        super().__init__()
        self._finished = finished

    def should_stop(self) -> bool:
        return len(self.done) >= self._finished
