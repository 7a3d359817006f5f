from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metabench.api import Config, Split
from metabench.engine.asking import predict
from metabench.engine.controls import is_transductive
from metabench.engine.costs import flops
from metabench.engine.evaluation import checked, evaluate, inductive_accuracies
from metabench.engine.learner import build_tested, make_learner
from metabench.engine.outcome import Outcome
from metabench.engine.streams import evaluation_stream, training_stream
from metabench.errors import CellFailed
from metabench.executors.loading import LoadedDataset
from metabench.machine.memory import BatchSize
from metabench.planning.cells import Cell
from metabench.planning.suite import Suite
from metabench.records.measured import Temperature
from metabench.registry.manager import PluginManager
from tiny import CPU, REAL, SUITE, Pixels, Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

Plan = Callable[..., tuple[Suite, list[Cell]]]

BUILT_IN = ["maml", "reptile", "protonet", "matchingnet", "siamese"]


Run = Callable[..., Outcome]


def test_impossible_classes_leave_the_nll_unknown_where_they_are_true(run: Run) -> None:
    outcome = run("infinite")
    assert outcome.primary.value == 1, "only the predicted class is possible, and it is right"
    nll = outcome.metrics["nll"]
    assert nll is not None
    assert nll.value == 0
    wrong = run("unlucky")
    assert {name for name, estimate in wrong.metrics.items() if estimate} == {"accuracy", "brier", "ece"}
    assert any(said.startswith("not measured: nll (it is not finite in 12 of 12 episodes") for said in wrong.remarks)
    assert any(
        said.startswith("not measured: nll_calibrated, brier_calibrated, ece_calibrated (no t")
        for said in wrong.remarks
    )


def test_the_temperature_sees_no_test_episode(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager, tmp_path: Path
) -> None:
    """Other test images and labels leave it as it is; other validation images do not."""
    _, (cell,) = cells_of("protonet", text=REAL)
    noise = torch.randint(0, 256, data.splits["test"].images.shape, dtype=torch.uint8)

    def temperature(**splits: Split) -> float:
        changed = replace(data, splits={**data.splits, **splits})
        datasets = {cell.dataset.label: data}
        learner = make_learner(cell.training, [cell.selection], datasets, CPU, everything, tmp_path, Watching())
        outcome = replace(learner, datasets={cell.dataset.label: changed}).test(cell, Watching())
        assert outcome.temperature is not None
        assert cell.training.schedule is not None
        assert outcome.temperature.episodes == cell.training.schedule.validation_episodes
        return outcome.temperature.value

    whole = temperature()
    assert temperature(test=replace(data.splits["test"], images=noise)) == whole
    assert temperature(val=replace(data.splits["val"], images=noise[: len(data.splits["val"].images)])) != whole


def test_what_trains_nothing_has_a_temperature_where_validation_episodes_can_be_drawn(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager, tmp_path: Path
) -> None:
    text = SUITE.replace("train: {{steps: 8, meta_batch: 2, validate_every: 2, validation_episodes: 5}}", "train: none")
    _, (cell,) = cells_of("centroid", text=text)
    assert cell.training.schedule is None

    def temperature(val: Split) -> Temperature | None:
        datasets = {cell.dataset.label: replace(data, splits={**data.splits, "val": val})}
        learner = make_learner(cell.training, [cell.selection], datasets, CPU, everything, tmp_path, Watching())
        return learner.test(cell, Watching()).temperature

    val = data.splits["val"]
    found = temperature(val)
    assert found is not None
    assert found.episodes == 100
    few = val.offsets[:3]
    assert temperature(replace(val, images=val.images[: few[-1]], offsets=few, class_names=val.class_names[:2])) is None


def test_outputs_of_the_first_episodes_are_kept(run: Run) -> None:
    whole, few, none = (
        run("centroid", text=SUITE.replace("episodes: 12", f"episodes: 12, keep_outputs: {keep}"), name=str(keep))
        for keep in (1000, 7, 0)
    )
    assert whole.episodes.outputs is not None
    assert few.episodes.outputs is not None
    assert none.episodes.outputs is None
    assert (whole.episodes.outputs.outputs.shape, whole.episodes.outputs.outputs.dtype) == ((12, 12, 3), np.float16)
    np.testing.assert_array_equal(few.episodes.outputs.outputs, whole.episodes.outputs.outputs[:7])
    np.testing.assert_array_equal(few.episodes.outputs.targets, whole.episodes.outputs.targets[:7])
    np.testing.assert_allclose(np.exp(whole.episodes.outputs.outputs.astype(float)).sum(axis=-1), 1, atol=1e-3)


def test_classes_with_different_numbers_of_queries_count_by_their_queries(run: Run) -> None:
    """Some classes of an episode have no query at all."""
    uneven = "query_balance: dirichlet, dirichlet_alpha: 0.3, "
    text = SUITE.replace("eval: {{", f"eval: {{{{{uneven}")
    outcome = run("relative", text=text)
    assert outcome.episodes.outputs is not None
    targets = outcome.episodes.outputs.targets
    assert any(len(set(labels)) < 3 for labels in targets.tolist())
    right = outcome.episodes.outputs.outputs.argmax(axis=-1) == targets
    np.testing.assert_allclose(outcome.episodes.figures["accuracy"], right.mean(axis=1))
    assert all(np.isfinite(figures).all() for figures in outcome.episodes.figures.values())
    assert outcome.episodes.alone is not None
    assert np.isfinite(outcome.episodes.alone).all()
    assert outcome.worst_classes == []


def test_constant_scores_have_the_accuracy_of_chance(run: Run) -> None:
    outcome = run("constant")
    np.testing.assert_allclose(outcome.episodes.figures["accuracy"], 1 / 3)
    assert outcome.transductive is False


@pytest.mark.parametrize(
    ("scores", "shown"), [((0.0, math.nan), "nan"), ((0.0, math.inf), "inf"), ((-math.inf, -math.inf), "-inf")]
)
def test_scores_that_are_no_log_probabilities_fail_the_cell(scores: tuple[float, float], shown: str) -> None:
    with pytest.raises(CellFailed, match=rf"not finite \(a score is {shown}\)"):
        checked(torch.tensor([[scores]]))


def test_a_single_class_may_be_impossible() -> None:
    np.testing.assert_array_equal(checked(torch.tensor([[[0.0, -math.inf]]])), [[[0.0, -np.inf]]])


@pytest.mark.parametrize(("name", "expected"), [("centroid", False), ("relative", True)])
def test_transduction_is_measured(
    name: str, expected: bool, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name)
    algorithm = build_tested(cell, data.splits, CPU, everything)
    assert is_transductive(algorithm, evaluation_stream(cell, data.splits, CPU), 0, BatchSize(CPU)) is expected


@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_only_batch_statistics_make_a_protonet_transductive(
    norm: str, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of("protonet", text=REAL.replace("channels: 4", f"channels: 4, norm: {norm}"))
    algorithm = build_tested(cell, data.splits, CPU, everything)
    assert is_transductive(algorithm, evaluation_stream(cell, data.splits, CPU), 0, BatchSize(CPU)) is (norm == "batch")


@pytest.mark.parametrize("name", [*BUILT_IN, "relative"])
def test_accuracies_do_not_depend_on_the_batch_size(
    name: str, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name, text=SUITE if name == "relative" else REAL)
    algorithm = build_tested(cell, data.splits, CPU, everything)
    algorithm.train_step(training_stream(cell.training, data.splits, CPU).batch(0, 2))
    stream = evaluation_stream(cell, data.splits, CPU)
    one = evaluate(algorithm, stream, 11, BatchSize(CPU, 1), 0)
    for batch in (2, 5, 11, 50):
        np.testing.assert_array_equal(evaluate(algorithm, stream, 11, BatchSize(CPU, batch), 0), one)


class Narrow(Pixels):
    """Has memory for two episodes at a time."""

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        if len(x) > 2 * 18:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return super().forward(x, support)


def test_a_batch_too_large_for_memory_is_halved_with_the_same_result(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of("protonet", text=REAL)
    algorithm = build_tested(cell, data.splits, CPU, everything)
    algorithm.backbone = Pixels(Config(), (1, 16, 16))
    algorithm.backbone.per_image = True
    stream = evaluation_stream(cell, data.splits, CPU)
    whole = evaluate(algorithm, stream, 11, BatchSize(CPU), 0)
    algorithm.backbone.__class__ = Narrow
    batch = BatchSize(CPU)
    np.testing.assert_array_equal(evaluate(algorithm, stream, 11, batch, 0), whole)
    assert batch.size == 2


@pytest.mark.parametrize("name", BUILT_IN)
def test_testing_leaves_the_algorithm_as_it_was(
    name: str, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name, text=REAL)
    algorithm = build_tested(cell, data.splits, CPU, everything)
    algorithm.train_step(training_stream(cell.training, data.splits, CPU).batch(0, 2))
    before = copy.deepcopy((algorithm.state_dict(), algorithm.training_state()))
    evaluate(algorithm, evaluation_stream(cell, data.splits, CPU), 5, BatchSize(CPU, 2), 0)
    assert str(before) == str((algorithm.state_dict(), algorithm.training_state()))
    for key, value in algorithm.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(value, before[0][key]), key


@pytest.mark.parametrize("norm", ["batch", "support"])
def test_inductive_accuracy_equals_that_of_episodes_with_one_query(
    norm: str, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of("protonet", text=REAL.replace("channels: 4", f"channels: 4, norm: {norm}"))
    algorithm = build_tested(cell, data.splits, CPU, everything).eval()
    stream = evaluation_stream(cell, data.splits, CPU)
    for i, accuracy in enumerate(inductive_accuracies(algorithm, stream, 3, BatchSize(CPU, 2), 0)):
        episode = stream.batch(i, 1)
        correct = []
        for label in range(episode.way):
            query = episode.query_x[:, (episode.query_y[0] == label).nonzero()[0]]
            scores = predict(algorithm, replace(episode, query_x=query), 0, i)
            correct.append(int(scores[0, 0].argmax()) == label)
        assert accuracy == pytest.approx(np.mean(correct))


def test_a_transductive_algorithm_is_also_tested_inductively(run: Run) -> None:
    relative = run("relative")
    assert relative.transductive
    assert relative.episodes.alone is not None
    assert relative.episodes.alone.shape == (12,)
    assert relative.inductive_accuracy is not None
    assert relative.inductive_accuracy.episodes == 12
    centroid = run("centroid")
    assert centroid.inductive_accuracy == centroid.primary


def test_a_failing_inductive_test_is_a_remark_and_keeps_the_accuracy(run: Run) -> None:
    outcome = run("sociable")
    assert outcome.primary.episodes == 12
    assert outcome.inductive_accuracy is None
    *_, remark = outcome.remarks
    assert remark.startswith("not measured: inductive accuracy (ValueError: I am not used to be alone")


def test_flops_count_operations_per_episode(cells_of: Plan, data: LoadedDataset, everything: PluginManager) -> None:
    _, (cell,) = cells_of("protonet", text=REAL)
    algorithm = build_tested(cell, data.splits, CPU, everything).eval()
    episode = evaluation_stream(cell, data.splits, CPU).batch(0, 1)
    images, channels = episode.support_x.shape[1] + episode.query_x.shape[1], 4
    per_image = sum(2 * size**2 * 9 * into * channels for size, into in ((16, 1), (8, 4), (4, 4), (2, 4)))
    distances = 2 * episode.query_x.shape[1] * episode.way * channels
    counted = flops(algorithm, evaluation_stream(cell, data.splits, CPU), 0)
    assert images * per_image <= counted <= images * per_image + 3 * distances


def test_the_worst_classes_are_named_with_their_number_of_episodes(run: Run) -> None:
    outcome = run("constant")
    assert [worst.accuracy for worst in outcome.worst_classes] == pytest.approx([1 / 3] * 6)
    assert sum(worst.episodes for worst in outcome.worst_classes) == 12 * 3
    assert run("centroid").worst_classes == []


def test_the_worst_episode_is_drawn(run: Run) -> None:
    drawn = run("constant").picture
    assert drawn is not None
    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 40


@pytest.mark.parametrize(("norm", "apart"), [("running", True), ("batch", False)])
def test_adapting_and_answering_are_timed_apart_where_they_can_be(run: Run, norm: str, apart: bool) -> None:
    timed = run("protonet", text=REAL.replace("channels: 4", f"channels: 4, norm: {norm}")).eval
    assert timed.latency_ms.p50 > 0
    assert (timed.adapt_ms is not None, timed.answer_ms is not None) == (apart, apart)
    if timed.adapt_ms and timed.answer_ms:
        assert timed.adapt_ms.p95 >= timed.adapt_ms.p50 > 0
        assert timed.answer_ms.p50 > 0
