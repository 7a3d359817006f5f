"""Torch modules of other packages as backbones."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metabench.api.backbones import Backbone, BackboneInput
from metabench.api.config import Config
from metabench.errors import Unfit, in_one_line


class ModuleConfig(Config):
    """Parameters of a torch module as a backbone.

    Attributes:
        args: keyword arguments of the callable.
        drop: submodules that pass on their input instead, e.g. the classifier, ``["fc"]``.
        frozen: whether the weights stay as they are.
        size: height and width of the images that the weights were made for; other sizes get a remark.
        mean: mean of each channel that the weights were made for, of images scaled to 0 … 1; by default, the dataset's.
        std: standard deviation of each channel, likewise.
    """

    args: dict[str, Any] = Field(default_factory=dict)
    drop: tuple[str, ...] = ()
    frozen: bool = True
    size: int | None = Field(default=None, ge=1)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class ModuleBackbone(Backbone):
    """Map [n, C, H, W] images to [n, D] features by a torch module.

    The module is built by a callable and must be called with the images alone. In eval mode, the features of an image
    must not depend on other images.

    Raises:
        Unfit: the module cannot take the images, or returns no [n, D] features.
        ValueError: `drop` names no submodule.
    """

    Config: ClassVar[type[Config]] = ModuleConfig
    per_image = True
    #: Returns the torch module.
    make: ClassVar[Callable[..., nn.Module]]

    def __init__(self, config: ModuleConfig, image_shape: tuple[int, ...]) -> None:
        super().__init__(config, image_shape)
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            self.module = type(self).make(**config.args)
        if not isinstance(self.module, nn.Module):
            raise ValueError(f"it returns {type(self.module).__name__}, no torch.nn.Module")
        for name in config.drop:
            _drop(self.module, name)
        self.frozen = config.frozen
        self.input = BackboneInput(config.size, config.mean, config.std)
        self.features = _length_of_features(self.module, image_shape)

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        features: Tensor = self.module(x)
        return features


def module_backbone(make: Callable[..., nn.Module]) -> type[ModuleBackbone]:
    """Return the backbone class of a callable that returns a torch module."""
    members = {"make": staticmethod(make), "__doc__": make.__doc__, "__module__": make.__module__}
    return type(getattr(make, "__name__", "Module"), (ModuleBackbone,), members)


def _drop(module: nn.Module, name: str) -> None:
    """Replace a submodule, ``"head.fc"``, by one that passes on its input."""
    parent, _, last = name.rpartition(".")
    try:
        owner = module.get_submodule(parent)
        owner.get_submodule(last)
    except AttributeError:
        known = ", ".join(child for child, _ in module.named_children())
        raise ValueError(f"drop: there is no submodule '{name}'; there are {known or 'none'}") from None
    setattr(owner, last, nn.Identity())


def _length_of_features(module: nn.Module, image_shape: tuple[int, ...]) -> int:
    """Return D, by embedding two black images.

    Raises:
        Unfit: the module cannot take the images, or returns no [n, D] features.
    """
    shape = "×".join(map(str, image_shape))
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            features: object = module(torch.zeros(2, *image_shape))
    except Exception as error:  # a module may raise anything
        raise Unfit(f"the module cannot take images of {shape}: {in_one_line(error)}") from error
    module.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
        came = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise Unfit(
            f"the module returns {came} for two images of {shape}, and should return features [2, D]: drop its last "
            "layers (`drop`), or write a callable that pools and flattens them"
        )
    return features.shape[1]
