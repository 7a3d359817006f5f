"""Torch modules of other packages as backbones."""

from __future__ import annotations

import abc
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metabench.api.backbones import Backbone, BackboneInput
from metabench.api.config import Config
from metabench.api.weights_files import load_weights_file
from metabench.errors import Unfit, in_one_line


class ModuleConfig(Config):
    """Parameters of every `ModuleBackbone`.

    Attributes:
        frozen: whether the weights stay as they are.
        pretrained_on: the images that the weights were pretrained on, e.g. ``ImageNet-1k``; tables show them, and warn
            where the test classes are among them.
        size: height and width of the images that the weights were made for; other sizes get a remark.
        mean: mean of each channel that the weights were made for, of images scaled to 0 … 1; by default, the dataset's.
        std: standard deviation of each channel, likewise.
    """

    frozen: bool = True
    pretrained_on: str = ""
    size: int | None = Field(default=None, ge=1)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class ModuleBackbone(Backbone):
    """Map [n, C, H, W] images to [n, D] features by a torch module.

    The module is called with the images alone. In eval mode, the features of an image must not depend on other images.

    Raises:
        Unfit: the module cannot take the images, or returns no [n, D] features.
        ValueError: it cannot be made with these parameters.
    """

    Config: ClassVar[type[Config]] = ModuleConfig
    per_image = True

    def __init__(self, config: ModuleConfig, image_shape: tuple[int, ...]) -> None:
        super().__init__(config, image_shape)
        self.frozen = config.frozen
        self.pretrained_on = config.pretrained_on
        self.input = BackboneInput(config.size, config.mean, config.std)
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            self.module = self.make_module()
        self.features = _length_of_features(self.module, image_shape)

    @abc.abstractmethod
    def make_module(self) -> nn.Module:
        """Return the module with its weights, without its classifier; called once, by the constructor.

        It sets `draws` to whether the weights are drawn at random, and `pretrained_on`.

        Raises:
            ValueError: it cannot be made with the parameters in `config`.
        """

    def made_for(self, size: int | None, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Note the images that the weights were made for; parameters of the suite go first."""
        given: ModuleConfig = self.config
        self.input = BackboneInput(given.size or size, given.mean or mean, given.std or std)

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        features: Tensor = self.module(x)
        return features


class CallableConfig(ModuleConfig):
    """Parameters of a callable that returns a torch module.

    Attributes:
        args: keyword arguments of the callable.
        drop: submodules that pass on their input instead, e.g. the classifier, ``["fc"]``.
        weights: file of weights for the module; None leaves it as the callable returns it.
    """

    args: dict[str, Any] = Field(default_factory=dict)
    drop: tuple[str, ...] = ()
    weights: str | None = None


class CallableBackbone(ModuleBackbone):
    """Map [n, C, H, W] images to [n, D] features by the torch module that a callable returns.

    Raises:
        Unfit: the module cannot take the images, or returns no [n, D] features.
        ValueError: `drop` names no submodule, or the file of weights does not fit.
    """

    Config: ClassVar[type[Config]] = CallableConfig
    #: Returns the torch module.
    make: ClassVar[Callable[..., nn.Module]]

    def make_module(self) -> nn.Module:
        """See `ModuleBackbone.make_module`."""
        module: object = type(self).make(**self.config.args)
        if not isinstance(module, nn.Module):
            raise ValueError(f"it returns {type(module).__name__}, no torch.nn.Module")
        self.draws = self.config.weights is None and not self.config.pretrained_on
        if self.config.weights is not None:
            load_weights_file(module, self.config.weights, self.config.drop)
        for name in self.config.drop:
            drop_submodule(module, name)
        return module


def callable_backbone(make: Callable[..., nn.Module]) -> type[CallableBackbone]:
    """Return the backbone class of a callable that returns a torch module."""
    members = {"make": staticmethod(make), "__doc__": make.__doc__, "__module__": make.__module__}
    return type(getattr(make, "__name__", "Module"), (CallableBackbone,), members)


def drop_submodule(module: nn.Module, name: str) -> None:
    """Replace a submodule, ``"head.fc"``, by one that passes on its input.

    Raises:
        ValueError: there is no such submodule.
    """
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
