"""Classifiers of torchvision, without their last layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ValidationInfo, field_validator
from torch import nn
from torchvision import models

from metabench.api import Config, ModuleBackbone, drop_submodule, is_weights_file, load_weights_file, nearest
from metabench_plugins.backbones.named_models import ADVICE, NamedModelConfig, announce_fetching


class TorchvisionConfig(NamedModelConfig):
    """Parameters of `Torchvision`.

    Attributes:
        model: name of the network, e.g. ``resnet18``.
        weights: ``pretrained`` for the best ones of this version of torchvision, the name of others, e.g.
            ``IMAGENET1K_V1``, a file, or ``none``.
    """

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        known = models.list_models(module=models)
        if model not in known:
            raise ValueError(f"torchvision has no classifier of that name{nearest(model, known)}")
        return model

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, weights: str, info: ValidationInfo) -> str:
        """Name the weights that ``pretrained`` stands for: they may be others in another version of torchvision."""
        if weights == "none" or is_weights_file(weights) or "model" not in info.data:
            return weights
        entries = models.get_model_weights(info.data["model"])
        if weights == "pretrained":
            return str(entries.DEFAULT.name)
        if weights not in entries.__members__:
            known = ["none", "pretrained", *(entry.name for entry in entries)]
            raise ValueError(
                f"{info.data['model']} has no such weights{nearest(weights, known)}: name a file (.pth, .safetensors), "
                f"or one of {', '.join(known)}"
            )
        return weights


class Torchvision(ModuleBackbone):
    """Map [n, 3, H, W] images to [n, D] features by a classifier of torchvision, without its last layer.

    Mean, standard deviation and size are those that torchvision's weights were made for.
    """

    Config: ClassVar[type[Config]] = TorchvisionConfig

    def make_module(self) -> nn.Module:
        """See `ModuleBackbone.make_module`."""
        config: TorchvisionConfig = self.config
        self.draws = config.weights == "none"
        network: nn.Module = models.get_model(config.model, weights=None)
        classifier = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1:]
        if not classifier:
            raise ValueError(f"{config.model} does not end with a linear layer, and so has no features to give")
        if is_weights_file(config.weights):
            load_weights_file(network, config.weights, classifier)
        elif config.weights != "none":
            entry: Any = models.get_model_weights(config.model)[config.weights]
            network.load_state_dict(_fetched(entry))
            preset = entry.transforms()
            self.made_for(preset.crop_size[0], preset.mean, preset.std)
            self.pretrained_on = config.pretrained_on or _images_of(entry.name)
        drop_submodule(network, classifier[0])
        return network


def _fetched(entry: Any) -> dict[str, Any]:
    """Return weights of torchvision from its cache, or from the network.

    Raises:
        ValueError: they are not in the cache, and cannot be fetched.
    """
    if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name).exists():
        announce_fetching(str(entry), entry.url)
    try:
        state: dict[str, Any] = entry.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # of the network, or the hash of the file is another
        raise ValueError(f"{entry}: the weights cannot be fetched from {entry.url} ({error}): {ADVICE}") from error
    return state


def _images_of(name: str) -> str:
    """Return the images that weights of torchvision were pretrained on, as its documentation says."""
    if "SWAG" not in name:
        return "ImageNet-1k"
    return "IG-3.6B" if "LINEAR" in name else "IG-3.6B, ImageNet-1k"
