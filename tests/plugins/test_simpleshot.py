"""SimpleShot: transformed features and their nearest class mean, number by number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metabench.api import Classification, Images, Setup, Support
from metabench_plugins.algorithms.simpleshot import SimpleShot, SimpleShotConfig
from metabench_plugins.backbones.identity import Identity

#: Features of four training images; their mean is (1, 2).
TRAIN = [[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]]
SUPPORT = [[4.0, 2.0], [1.0, 7.0], [4.0, 6.0], [1.0, 3.0]]
LABELS = [0, 1, 0, 1]
QUERY = [3.0, 2.0]


def simpleshot(**params: Any) -> SimpleShot:
    backbone = Identity(Identity.Config(), (2,))
    return SimpleShot(SimpleShotConfig(**params), Setup(backbone, None, None, 0)).double()


def scores(learner: SimpleShot) -> list[float]:
    support = Support(tensor(SUPPORT), torch.tensor(LABELS), Classification(2))
    answers: Tensor = learner.answer(learner.adapt(support), tensor([QUERY]))
    return answers[0].tolist()  # type: ignore[no-any-return]


def tensor(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def prepare(learner: SimpleShot) -> None:
    parts = [tensor(TRAIN[:3]), tensor(TRAIN[3:])]
    learner.prepare(Images(x, torch.zeros(len(x), dtype=torch.long), 1, embedded=True) for x in parts)


def test_cl2n_subtracts_the_mean_of_the_training_images_and_divides_by_the_length() -> None:
    learner = simpleshot()
    prepare(learner)
    assert learner.get_buffer("mean").tolist() == [1.0, 2.0]
    # Centred and normalised: support (1, 0), (0, 1), (.6, .8), (0, 1), query (1, 0); means (.8, .4) and (0, 1).
    assert scores(learner) == pytest.approx([-(0.2**2 + 0.4**2), -2.0], abs=1e-12)


def test_l2n_divides_by_the_length_only() -> None:
    learner = simpleshot(transform="L2N")
    prepare(learner)
    unit = [[a / (a * a + b * b) ** 0.5, b / (a * a + b * b) ** 0.5] for a, b in [*SUPPORT, QUERY]]
    means = [[(unit[i][k] + unit[i + 2][k]) / 2 for k in range(2)] for i in range(2)]
    expected = [-sum((unit[4][k] - mean[k]) ** 2 for k in range(2)) for mean in means]
    assert scores(learner) == pytest.approx(expected, abs=1e-12)


def test_un_takes_features_as_they_are() -> None:
    learner = simpleshot(transform="UN")
    prepare(learner)
    assert scores(learner) == pytest.approx([-(1.0 + 4.0), -(4.0 + 9.0)], abs=1e-12)


def test_the_mean_begins_anew_each_time() -> None:
    learner = simpleshot()
    prepare(learner)
    prepare(learner)
    assert learner.get_buffer("mean").tolist() == [1.0, 2.0]


def test_the_transform_is_of_the_test_only() -> None:
    assert SimpleShotConfig.model_fields["transform"].json_schema_extra == {"test_time": True}
