from __future__ import annotations

from importlib.metadata import entry_points

import pytest
import torch

from metabench.api import Config
from metabench.conformance.backbones import CHECKS, Subject
from metabench.conformance.checks import run
from metabench.registry.manager import PluginManager
from metabench_plugins.backbones.identity import Identity


@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_all_rules(check: str) -> None:
    plugins = PluginManager(entry_points(group="metabench", name="builtin"))
    run(CHECKS[check], Subject("identity", plugins=plugins))


@pytest.mark.parametrize("shape", [(1, 3, 4), (12,)])
def test_images_and_vectors_come_as_they_are(shape: tuple[int, ...]) -> None:
    backbone = Identity(Config(), shape)
    rows = torch.randn(5, *shape)
    assert backbone.features == 12
    assert torch.equal(backbone(rows), rows.reshape(5, 12))
