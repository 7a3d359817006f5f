"""The checks of the kit on every head, and on the methods that learn from distorted copies of support images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from metabench.conformance.algorithms import CHECKS
from metabench.conformance.checks import run
from metabench.conformance.subjects import Subject
from metabench_plugins.heads.announced import HEADS

pytestmark = pytest.mark.slow

#: Heads of which a query's scores depend on the other queries.
TRANSDUCTIVE = {"bd-cspn", "laplacianshot", "tim", "pt-map", "transductive-finetuning"}
#: Few steps, where the defaults are slow.
PARAMS: Mapping[str, Mapping[str, Any]] = {"tim": {"steps": 20}, "finetuning": {"steps": 20}}

every_check = pytest.mark.parametrize("check", CHECKS)


@every_check
@pytest.mark.parametrize("head", [spec.name for spec in HEADS])
def test_a_head_conforms(head: str, check: str) -> None:
    run(CHECKS[check], Subject(head, PARAMS.get(head, {}), transductive=head in TRANSDUCTIVE))


@every_check
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("tip-adapter", {"views": 2, "zero_shot": "means"}),
        ("rfs", {"views": 2}),
        ("rfs", {"views": 0}),
        ("classifier-cosine", {"test_epochs": 20}),
    ],
)
def test_a_method_on_images_conforms(name: str, params: Mapping[str, Any], check: str) -> None:
    run(CHECKS[check], Subject(name, params))
