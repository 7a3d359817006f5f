"""The built-in backbones, as `metabench list` shows them: no class of them is imported here."""

from __future__ import annotations

from metabench.specs import BackboneSpec

_HERE = "metabench_plugins.backbones"

BACKBONES = [
    BackboneSpec(
        "conv4",
        f"{_HERE}.conv4:Conv4",
        "four blocks of 3×3 convolution, batch norm and ReLU, each halving the image",
        "Vinyals et al. 2016",
        "https://arxiv.org/abs/1606.04080",
    ),
    BackboneSpec(
        "mlp",
        f"{_HERE}.mlp:MLP",
        "fully connected layers with ReLU, for vectors",
    ),
    BackboneSpec(
        "identity",
        f"{_HERE}.identity:Identity",
        "the pixels, or the vectors of a dataset of features, as they are",
    ),
]
