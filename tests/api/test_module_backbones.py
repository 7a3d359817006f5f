"""Callables of other packages and files as backbones."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from metabench.api import Backbone
from metabench.cli.plugin import plugin as plugin_command
from metabench.conformance.backbones import CHECKS, Subject
from metabench.conformance.checks import run
from metabench.errors import PluginError, Unfit
from metabench.registry.configs import InvalidConfig, validate_config
from metabench.registry.manager import PluginManager

FLATTEN = "module:torch.nn:Flatten"

IN_FILE = """
from torch import nn

def small(width=4):
    print("loading")
    convolution = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)
    return nn.Sequential(*convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))

def number():
    return 3
"""


@pytest.fixture
def plugins() -> PluginManager:
    return PluginManager([])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "networks.py").write_text(IN_FILE, encoding="utf-8")
    return tmp_path / "networks.py"


def build(plugins: PluginManager, name: str, shape: tuple[int, ...] = (3, 9, 9), **params: Any) -> Backbone:
    cls = plugins.backbone_class(name)
    return cls(validate_config(cls.Config, params), shape)


def test_a_callable_of_a_package_is_a_backbone(plugins: PluginManager) -> None:
    backbone = build(plugins, FLATTEN, (1, 4, 5))
    images = torch.randn(3, 1, 4, 5)
    assert torch.equal(backbone(images), images.flatten(1))
    assert (backbone.features, backbone.frozen, backbone.per_image) == (20, True, True)
    assert plugins.provider("backbone", FLATTEN) == f"torch {version('torch')}"
    assert plugins.kind_of(FLATTEN) == "backbone"
    assert plugins.code("backbone", FLATTEN) != plugins.code("backbone", "module:torchvision.models:resnet18")


def test_a_function_of_a_file_is_a_backbone(plugins: PluginManager, path: Path) -> None:
    assert build(plugins, f"{path}:small", args={"width": 6}, drop=["4"]).features == 6
    before = plugins.code("backbone", f"{path}:small")
    path.write_text(IN_FILE.replace("nn.Linear(width, 10)", "nn.Linear(width, 9)"), encoding="utf-8")
    assert plugins.code("backbone", f"{path}:small") != before
    assert build(plugins, f"{path}:small").features == 9


def test_standard_output_stays_free_for_results(
    plugins: PluginManager, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(plugins, f"{path}:small")
    assert capsys.readouterr() == ("", "loading\n")


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_all_rules(check: str, frozen: bool, plugins: PluginManager, path: Path) -> None:
    run(CHECKS[check], Subject(f"{path}:small", {"frozen": frozen}, plugins=plugins))


def test_plugin_check_takes_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PluginManager, "from_environment", lambda: PluginManager([]))
    params = json.dumps({"drop": ["4"]})
    result = CliRunner().invoke(plugin_command, ["check", f"{path}:small", "--params", params])
    assert "12 of 12 checks passed" in result.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module:torch.nn", r"'module:torch\.nn' must be module:PACKAGE:CALLABLE"),
        ("module:torch.nn:Flaten", r"there is no Flaten in torch\.nn: name a callable"),
        ("module:math:pi", r"pi in math is a float: name a callable"),
        ("module:no_such_package:x", r"module:no_such_package:x cannot be imported: .*No module named"),
    ],
)
def test_a_wrong_name_is_refused_with_the_form(name: str, message: str, plugins: PluginManager) -> None:
    with pytest.raises(PluginError, match=message):
        plugins.backbone_class(name)


def test_images_that_the_module_cannot_take_make_the_cell_unfit(plugins: PluginManager, path: Path) -> None:
    with pytest.raises(Unfit, match=r"the module cannot take images of 1×9×9: "):
        build(plugins, f"{path}:small", (1, 9, 9))
    with pytest.raises(Unfit, match=r"returns \[2, 4, 1, 1\] for two images of 3×9×9, and should return .*drop"):
        build(plugins, f"{path}:small", drop=["3", "4"])
    with pytest.raises(Unfit, match="takes images, and the dataset has vectors of 7 numbers"):
        build(plugins, f"{path}:small", (7,))


def test_wrong_parameters_are_named(plugins: PluginManager, path: Path) -> None:
    with pytest.raises(ValueError, match=r"drop: there is no submodule 'head'; there are 0, 1, 2, 3, 4"):
        build(plugins, f"{path}:small", drop=["head"])
    with pytest.raises(ValueError, match=r"it returns int, no torch\.nn\.Module"):
        build(plugins, f"{path}:number")
    with pytest.raises(InvalidConfig, match=r"unknown key 'sizes' .did you mean 'size'"):
        build(plugins, f"{path}:small", sizes=3)


def test_another_size_than_the_weights_were_made_for_gets_a_remark(plugins: PluginManager, path: Path) -> None:
    made_for = build(plugins, f"{path}:small", size=224).input
    assert made_for.remark((3, 96, 96)) == "the backbone's input is 96, and its weights were made for 224"
    assert made_for.remark((3, 96, 64)) == "the backbone's input is 96×64, and its weights were made for 224"
    assert made_for.remark((3, 224, 224)) == build(plugins, f"{path}:small").input.remark((3, 9, 9)) == ""
