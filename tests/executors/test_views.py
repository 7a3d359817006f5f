"""Distorted copies of support images at test, from the suite to the record."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from metabench.api import Split
from metabench.engine.scaling import Scale
from metabench.engine.views import Views
from metabench.planning.distortions import Affine, Distortion, Flip
from metabench.records.record import Record

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RunSuite = Callable[..., list[Record]]

SUITE = """\
name: tiny
datasets: {blots: {}}
backbones: {conv4: {params: {channels: 4, norm: running}}}
ways: [3]
shots: [2]
queries: 4
train: {epochs: 3, batch: 16, validate_every: 9, validation_episodes: 3, augment: AUGMENT}
eval: {episodes: 12, batch: 5}
algorithms:
  rfs: {params: {views: 0}}
  copies: {use: rfs, weights: rfs, params: {views: 3}}
  again: {use: rfs, weights: rfs, params: {views: 3}}
  cache: {use: tip-adapter, weights: rfs}
  cached-copies: {use: tip-adapter, weights: rfs, params: {views: 3}}
  student: {use: rfs, teacher: rfs, params: {views: 0}}
"""


def by_label(records: list[Record]) -> dict[str, Record]:
    return {record.algorithm: record for record in records}


def split() -> Split:
    images = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8)
    return Split(images, torch.tensor([0, 1, 2]), ["a", "b"], mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))


def test_views_distort_pixels_and_not_normalised_numbers() -> None:
    cpu = torch.device("cpu")
    images = Scale(split(), cpu)(split().rows.take(torch.arange(2)))
    flipped = Views([Distortion(flip=Flip(chance=1.0))], split(), cpu)(images)
    torch.testing.assert_close(flipped, images.flip(-1), rtol=0, atol=1e-6)
    shifted = Views([Distortion(affine=Affine(chance=1.0, component=1.0, shift=0.4))], split(), cpu)
    torch.manual_seed(0)
    first, second = shifted(images), shifted(images)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(shifted(images), first)
    black = (0 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.1, 0.2, 0.3])
    for channel in range(3):
        assert float(first[:, channel].min()) >= float(black[channel]) - 1e-5, "what moves in is black"


def test_support_images_are_distorted_as_the_training_of_the_weights_distorts(run_suite: RunSuite) -> None:
    records = by_label(run_suite(SUITE.replace("AUGMENT", "[{crop: {padding: 2}}, {flip: {}}]")))
    assert {label: record.status for label, record in records.items()} == dict.fromkeys(records, "ok")
    values = {label: record.metrics["nll"].value for label, record in records.items()}
    assert values["copies"] == values["again"], "the draws are of the episode"
    assert values["copies"] != values["rfs"]
    assert values["cached-copies"] != values["cache"]
    assert values["student"] != values["rfs"]
    assert not any(record.transductive for record in records.values())


def test_copies_fail_where_the_training_distorts_nothing(run_suite: RunSuite) -> None:
    records = by_label(run_suite(SUITE.replace("AUGMENT", "[]")))
    failed = {label for label, record in records.items() if record.status == "failed"}
    assert failed == {"copies", "again", "cached-copies"}
    assert "name distortions in its train.augment, or set views: 0" in str(records["copies"].error)
