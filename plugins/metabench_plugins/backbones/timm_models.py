"""Networks of timm (https://github.com/huggingface/pytorch-image-models), without their classifier."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from pydantic import Field, field_validator
from torch import nn

from metabench.api import Config, ModuleBackbone, in_one_line, is_weights_file, load_weights_file, nearest
from metabench_plugins.backbones.named_models import ADVICE, NamedModelConfig, announce_fetching

#: Images behind the parts of timm's names of weights, as its documentation says.
_IMAGES = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "dino": "ImageNet-1k",
    "lvd142m": "LVD-142M (with ImageNet-22k)",
    "openai": "WIT-400M",
    "laion2b": "LAION-2B",
    "ig1b": "IG-1B",
}
#: Names of files of weights on the hub.
_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class TimmConfig(NamedModelConfig):
    """Parameters of `Timm`.

    Attributes:
        model: name of the network and its weights, e.g. ``vit_small_patch14_dinov2.lvd142m``; without the part after
            the dot, those that this version of timm prefers.
        args: further arguments of ``timm.create_model``, e.g. ``{img_size: 224}``.
    """

    args: dict[str, Any] = Field(default_factory=dict)

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        """Name the weights that timm prefers: they may be others in another version."""
        name, _, tag = model.partition(".")
        if not timm.is_model(name):
            raise ValueError(f"timm has no network of that name{nearest(name, timm.list_models())}")
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
        if tag and tag not in tags:
            raise ValueError(f"timm has no such weights{nearest(tag, tags)}: {name} has {', '.join(tags) or 'none'}")
        preferred = timm.get_pretrained_cfg(name)
        tag = tag or (preferred.tag if preferred else None) or ""
        return f"{name}.{tag}" if tag else name

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, weights: str) -> str:
        if weights not in ("none", "pretrained") and not is_weights_file(weights):
            raise ValueError("name none, pretrained or a file (.pth, .safetensors)")
        return weights


class Timm(ModuleBackbone):
    """Map [n, C, H, W] images to [n, D] features by a network of timm, without its classifier.

    Mean, standard deviation and size are those that timm's weights were made for.
    """

    Config: ClassVar[type[Config]] = TimmConfig

    def make_module(self) -> nn.Module:
        """See `ModuleBackbone.make_module`."""
        config: TimmConfig = self.config
        self.draws = config.weights == "none"
        pretrained = config.weights == "pretrained"
        source = timm.get_pretrained_cfg(config.model)
        if pretrained and source and not _is_here(source):
            announce_fetching(config.model, str(source.hf_hub_id or source.url))
        try:
            network: Any = timm.create_model(config.model, pretrained=pretrained, **config.args)
        except Exception as error:  # of timm, of the hub's client, or of the network
            advice = f": {ADVICE}" if pretrained else ""
            raise ValueError(f"timm cannot make {config.model} ({in_one_line(error)}){advice}") from error
        if is_weights_file(config.weights):
            classifier = network.get_classifier()
            dropped = [name for name, layer in network.named_modules() if layer is classifier]
            load_weights_file(network, config.weights, dropped)
        if pretrained:
            made_for = network.pretrained_cfg
            self.made_for(made_for["input_size"][-1], made_for["mean"], made_for["std"])
            self.pretrained_on = config.pretrained_on or _images_of(config.model.partition(".")[2])
        network.reset_classifier(0)
        return network  # type: ignore[no-any-return]


def _is_here(source: Any) -> bool:
    """Return whether the weights are in the cache of the hub or of torch."""
    if source.hf_hub_id:
        return any(isinstance(try_to_load_from_cache(source.hf_hub_id, name), str) for name in _FILES)
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(str(source.url)).name).exists()


def _images_of(tag: str) -> str:
    """Return the images that weights were pretrained on, by the parts of their name; the name if none is known."""
    found = [_IMAGES[part] for part in re.split(r"[_.]", tag) if part in _IMAGES]
    return ", ".join(found) or f"images of timm's '{tag}'"
