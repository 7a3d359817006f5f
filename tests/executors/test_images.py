"""Algorithms that train on images or on nothing, from the suite to the record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from metabench.api import Images
from metabench.data.packing import LoadedDataset
from metabench.engine.progress import Interrupted
from metabench.errors import PluginError, SuiteError
from metabench.records.record import Record
from metabench_plugins.algorithms.simpleshot import SimpleShot
from tiny import Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RunSuite = Callable[..., list[Record]]

BASE = """\
name: tiny
datasets: {blots: {}}
backbones: {conv4: {params: {channels: 4, norm: running}}}
ways: [3]
shots: [2]
queries: 4
train: TRAIN
eval: {episodes: 12, batch: 5}
algorithms: ALGORITHMS
"""
#: 48 images make three batches of 16.
EPOCHS = "{epochs: 3, batch: 16, validate_every: 4, validation_episodes: 5}"
DISTORTED = EPOCHS.replace("{", "{augment: [{crop: {padding: 2}}, {flip: {}}, {affine: {}}], ", 1).replace(
    "{augment", "{steps: 7, meta_batch: 2, augment"
)


def suite(algorithms: str, train: str = EPOCHS) -> str:
    return BASE.replace("ALGORITHMS", algorithms).replace("TRAIN", train)


def essence(record: Record) -> dict[str, Any]:
    assert record.status == "ok", record.error
    return record.model_dump(include={"metrics", "inductive_accuracy", "worst_classes", "transductive"})


def weights(tmp_path: Path, record: Record, output: str = "out") -> dict[str, Tensor]:
    assert record.weights is not None
    return safetensors.torch.load_file(tmp_path / output / "weights" / record.weights.file)


def test_epochs_of_whole_batches_are_trained_and_recorded(run_suite: RunSuite) -> None:
    watcher = Watching()
    (record,) = run_suite(suite("{classifier: {}}"), watcher=watcher)
    assert record.train is not None
    assert (record.train.steps, record.train.images, record.train.episodes) == (9, 144, 0)
    assert record.train.images_per_second is not None
    assert record.train.episodes_per_second is None
    assert [point.step for point in record.train.validation] == [4, 8, 9]
    assert ("train", 9, 0) in watcher.phases
    assert record.identity["train"] == {
        "epochs": 3,
        "batch": 16,
        "validate_every": 4,
        "validation_episodes": 5,
    }


def test_an_incomplete_batch_waits_for_the_next_epoch(run_suite: RunSuite) -> None:
    (record,) = run_suite(suite("{classifier: {train: {batch: 20}}}"))
    assert record.train is not None
    assert (record.train.steps, record.train.images) == (6, 120)


@pytest.mark.parametrize("algorithm", ["classifier", "simpleshot", "protonet"])
def test_one_seed_gives_one_training_also_with_distortions(run_suite: RunSuite, tmp_path: Path, algorithm: str) -> None:
    (one,) = run_suite(suite(f"{{{algorithm}: {{}}}}", DISTORTED))
    (other,) = run_suite(suite(f"{{{algorithm}: {{}}}}", DISTORTED), output="other")
    (plain,) = run_suite(suite(f"{{{algorithm}: {{train: {{augment: []}}}}}}", DISTORTED), output="plain")
    first, second = weights(tmp_path, one), weights(tmp_path, other, "other")
    assert all(torch.equal(first[name], second[name]) for name in first)
    undistorted = weights(tmp_path, plain, "plain")
    assert any(not torch.equal(first[name], undistorted[name]) for name in first)
    assert essence(one) == essence(other)
    assert one.cell != plain.cell


@pytest.mark.parametrize("phase", ["train", "validate", "prepare", "test"])
def test_an_interrupted_training_on_images_has_the_same_results(
    run_suite: RunSuite, tmp_path: Path, phase: str
) -> None:
    text = suite("{simpleshot: {params: {optimiser: sgd, momentum: 0.9, lr: 0.05, schedule: cosine}}}", DISTORTED)
    (undisturbed,) = run_suite(text, output="undisturbed")
    with pytest.raises(Interrupted):
        run_suite(text, watcher=Watching(phase, 4))
    (resumed,) = run_suite(text)
    assert essence(resumed) == essence(undisturbed)
    first, second = weights(tmp_path, resumed), weights(tmp_path, undisturbed, "undisturbed")
    assert all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------------------------------- prepare


def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Note the images and labels that `SimpleShot.prepare` sees, and the mean that it sets."""
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    prepare = SimpleShot.prepare

    def noting(self: SimpleShot, train: Any) -> None:
        batches: list[Images] = list(train)
        prepare(self, batches)
        assert not torch.is_grad_enabled()
        assert not self.training
        x, y = torch.cat([images.x for images in batches]), torch.cat([images.y for images in batches])
        calls.append((x, y, self.get_buffer("mean").clone()))

    monkeypatch.setattr(SimpleShot, "prepare", noting)
    return calls


def test_prepare_sees_all_training_images_in_order_undistorted(
    run_suite: RunSuite, data: LoadedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = seen(monkeypatch)
    text = suite("{simpleshot: {train: none}}").replace("conv4: {params: {channels: 4, norm: running}}", "identity: {}")
    run_suite(text)
    ((x, y, mean),) = calls
    train = data.splits["train"]
    assert y.tolist() == sorted(y.tolist()) == np.repeat(range(6), 8).tolist()
    expected = train.rows.take(torch.arange(48)).flatten(1).float() / 255
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(mean, expected.mean(dim=0), rtol=0, atol=1e-6)


def test_each_test_is_prepared_with_the_weights_that_it_tests(
    run_suite: RunSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = seen(monkeypatch)
    un = "{use: simpleshot, weights: classifier, params: {transform: UN}}"
    text = suite(f"{{classifier: {{}}, simpleshot: {{weights: classifier}}, un: {un}}}")
    _, head, other = run_suite(text)
    assert len(calls) == 2
    means = [mean for _, _, mean in calls]
    assert float(means[0].abs().sum()) > 0
    assert float(means[1].abs().sum()) == 0, "features that are not centred need no mean"
    # From the kept weights, in a later run, nothing is trained and the results are the same.
    watcher = Watching()
    (again,) = run_suite(text, only=["simpleshot"], watcher=watcher, fresh=True)
    assert not [name for name, _, done in watcher.phases if name == "train" and done == 0 and len(calls) < 3]
    assert torch.equal(calls[2][2], calls[0][2])
    assert essence(again) == essence(head)
    assert essence(other) != essence(head)


def test_a_trained_algorithm_is_prepared_with_its_selected_weights(
    run_suite: RunSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = seen(monkeypatch)
    (record,) = run_suite(suite("{simpleshot: {}}"))
    (file,) = run_suite(
        suite(f"{{simpleshot: {{weights: {tmp_path}/out/weights/{record.weights.file}}}}}"),  # type: ignore[union-attr]
        output="from_file",
    )
    assert len(calls) == 2
    assert torch.equal(calls[0][2], calls[1][2])
    # A file of weights has no validation, by which the others are calibrated.
    assert file.metrics["accuracy"] == record.metrics["accuracy"]


# ------------------------------------------------------------------------------------------- settings of a suite


@pytest.mark.parametrize(
    ("algorithms", "train", "message"),
    [
        (
            "{classifier: {train: {meta_batch: 2}}}",
            EPOCHS,
            "algorithms.classifier.train.meta_batch: 'classifier' trains on images: remove 'meta_batch' (it has steps, "
            "batch, epochs)",
        ),
        (
            "{protonet: {train: {steps: 3, batch: 2}}}",
            EPOCHS,
            "algorithms.protonet.train.batch: 'protonet' trains on episodes: remove 'batch' (it has steps, meta_batch, "
            "way, shot, queries, sampling)",
        ),
        ("{protonet: {}}", EPOCHS, "train: the key 'steps' is missing, for 'protonet'"),
        ("{classifier: {train: {steps: 3, epochs: 2}}}", EPOCHS, "the training has 'epochs', too: remove one of them"),
        ("{classifier: {train: {batch: 8}}}", "none", "the key 'epochs' or 'steps' is missing"),
        (
            "{classifier: {}}",
            "{steps: 3, augment: [{crop: {padding: 0}}]}",
            "train.augment.0.crop.padding: input should be greater than 0, not 0",
        ),
        ("{classifier: {}}", "{steps: 3, augment: [{blur: {}}]}", "train.augment.0.blur: unknown key 'blur'"),
        ("{classifier: {}}", "{steps: 3, augment: [{}]}", "train.augment.0: one distortion a line is needed"),
        (
            "{classifier: {}}",
            "{steps: 3, augment: [{resized_crop: {area: [.5, .2]}}]}",
            "train.augment.0.resized_crop: area must be a pair [low, high]",
        ),
        (
            "{classifier: {train: {augment: [{flip: {chance: 2}}]}}}",
            EPOCHS,
            "algorithms.classifier.train.augment.0.flip.chance: input should be less than or equal to 1, not 2",
        ),
    ],
)
def test_wrong_settings_are_reported_with_their_line(
    run_suite: RunSuite, algorithms: str, train: str, message: str
) -> None:
    with pytest.raises(SuiteError) as caught:
        run_suite(suite(algorithms, train))
    assert message in str(caught.value)
    assert f":{7 if message.startswith('train') else 9}: " in str(caught.value)


def test_the_suites_settings_serve_both_kinds(run_suite: RunSuite) -> None:
    both = "{steps: 4, meta_batch: 2, epochs: 1, batch: 24, validate_every: 2, validation_episodes: 5}"
    protonet, classifier, steps = run_suite(
        suite("{protonet: {}, classifier: {}, steps: {use: classifier, train: {steps: 5}}}", both)
    )
    assert [record.train.steps for record in (protonet, classifier, steps)] == [4, 2, 5]  # type: ignore[union-attr]
    assert [record.train.images for record in (protonet, classifier, steps)] == [0, 48, 120]  # type: ignore[union-attr]


def test_an_algorithm_that_trains_on_nothing_has_no_schedule(run_suite: RunSuite, tmp_path: Path) -> None:
    (tmp_path / "still.py").write_text(
        "from metabench_plugins.algorithms.protonet import ProtoNet\n"
        'class Still(ProtoNet):\n    trains_on = "nothing"\n',
        encoding="utf-8",
    )
    watcher = Watching()
    (record,) = run_suite(suite("{still: {use: ./still.py:Still, train: {steps: 5}}}"), watcher=watcher)
    assert record.status == "ok", record.error
    assert record.train is None
    assert record.identity["train"] is None
    assert "train" not in [name for name, _, _ in watcher.phases]


def test_an_algorithm_that_trains_on_something_else_is_refused(run_suite: RunSuite, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from metabench_plugins.algorithms.protonet import ProtoNet\n"
        'class Odd(ProtoNet):\n    trains_on = "pictures"\n',
        encoding="utf-8",
    )
    with pytest.raises(PluginError, match="trains_on = 'pictures': it must be one of 'episodes', 'images', 'nothing'"):
        run_suite(suite("{odd: {use: ./odd.py:Odd}}", EPOCHS.replace("{", "{steps: 3, ", 1)))
