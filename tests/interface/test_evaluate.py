"""Networks and algorithms of a program, tested as the cells of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metabench
from metabench.api import Algorithm, Config, Setup, Unfit
from metabench.errors import CellFailed, MetabenchError, UsageError
from metabench.records.store import Store
from tiny import Centroid, Pixels

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

SUITE: dict[str, Any] = {
    "name": "small",
    "datasets": {"glyphs": {}},
    "backbones": {"module:torch.nn:Flatten": {}},
    "algorithms": {"nearest-mean": {"train": "none"}},
    "ways": [3],
    "shots": [2],
    "queries": 4,
    "train": "none",
    "eval": {"episodes": 12},
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METABENCH_CACHE", str(glyphs_cache))
    for name in ("METABENCH_DATA", "METABENCH_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


def episodes() -> Any:
    return metabench.episodes("glyphs", way=3, shot=2, queries=4, count=12)


def evaluate(learner: Any, **options: Any) -> metabench.Run:
    return metabench.evaluate(learner, episodes(), **{"device": "cpu", **options})


class Network(nn.Module):
    """A small network with what networks have: batch norm, dropout, a scalar buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 5, stride=4)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.convolution(x))).flatten(1)


def test_a_module_has_the_results_of_a_suite_with_it() -> None:
    run = metabench.run(SUITE, device="cpu", workers=False)
    result = evaluate(nn.Flatten(), head="nearest-mean", name="mine", backbone="module:torch.nn:Flatten")
    both = metabench.load_run(run, result)
    values = both.values()
    assert values.shape == (12, 2)
    assert np.array_equal(values.iloc[:, 0], values.iloc[:, 1])
    assert both.compare(*values.columns).difference == 0
    (table,) = both.tables
    assert sorted((row.name, row.rank) for row in table.rows) == [("mine", 1), ("nearest-mean", 1)]
    (record,) = [result.record(cell) for cell in result.cells.index]
    assert set(record.metrics) >= {"accuracy", "nll", "ece"}
    assert record.primary is not None
    assert record.primary.data_ci95 is not None
    assert record.transductive is False
    assert any("evaluated from Python" in remark for remark in record.remarks)


def test_a_network_stays_as_it_is() -> None:
    network = Network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    evaluate(network, head="nearest-mean")
    assert torch.equal(torch.rand(2), expected), "nor are the caller's random numbers used"
    assert network.training
    assert network.norm.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_other_weights_are_another_cell() -> None:
    network = Network()
    (one,) = evaluate(network, head="nearest-mean").cells.index
    (same,) = evaluate(network, head="nearest-mean").cells.index
    with torch.no_grad():
        network.convolution.bias.add_(1)
    (other,) = evaluate(network, head="nearest-mean").cells.index
    assert one == same != other


def test_an_algorithm_answers_by_itself() -> None:
    backbone = Pixels(Config(), (1, 28, 28))
    centroid = Centroid(Config(), Setup(backbone, 3, None, 0))
    result = evaluate(centroid, name="mine", backbone="pixels")
    flat = evaluate(nn.Flatten(), head=Centroid, name="other")
    assert result.cells["accuracy"].tolist() == pytest.approx(flat.cells["accuracy"].tolist())
    assert result.cells["algorithm"].tolist() == ["mine"]


def test_a_result_is_kept_where_it_is_asked_for() -> None:
    result = evaluate(nn.Flatten(), head="nearest-mean", output="kept")
    assert result.directories == [Path("kept")]
    (record,) = Store(Path("kept")).records()
    assert record.algorithm == "Flatten, nearest-mean"
    temporary = evaluate(nn.Flatten(), head="nearest-mean")
    (place,) = temporary.directories
    assert place.is_dir()
    del temporary
    assert not place.exists()


class Broken(Centroid):
    """Answers with numbers that are none."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return super().answer(state, query) * float("nan")


@pytest.mark.parametrize(
    ("learner", "options", "error", "message"),
    [
        (nn.Flatten, {"head": "nearest-mean"}, UsageError, "is no torch.nn.Module: give an instance"),
        (nn.Flatten(), {}, UsageError, "Flatten gives features: say which algorithm answers from them, e.g. head='"),
        (nn.Flatten(), {"head": "nearest-meen"}, MetabenchError, "did you mean 'nearest-mean'"),
        (nn.Flatten(), {"head": "nearest-mean", "params": {"scales": 1}}, UsageError, "unknown key 'scales'"),
        (nn.Identity(), {"head": "nearest-mean"}, Unfit, "should return features"),
        (nn.Linear(3, 4), {"head": "nearest-mean"}, Unfit, "the module cannot take images of 1×28×28"),
        (nn.Flatten(), {"head": Broken}, CellFailed, "a prediction is not finite"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    learner: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(learner, output="kept", **options)
    assert not Path("kept").exists()


def test_only_test_episodes_are_evaluated() -> None:
    with pytest.raises(UsageError, match="the episodes are those of val: evaluate test episodes"):
        metabench.evaluate(nn.Flatten(), metabench.episodes("glyphs", split="val"), head="nearest-mean")


def test_an_algorithm_takes_no_head() -> None:
    centroid: Algorithm = Centroid(Config(), Setup(Pixels(Config(), (1, 28, 28)), 3, None, 0))
    with pytest.raises(UsageError, match="Centroid is an Algorithm, which answers by itself: leave out the head"):
        evaluate(centroid, head="nearest-mean")
