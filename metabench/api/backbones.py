"""Networks that map images to features."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metabench.api.config import Config
from metabench.errors import Unfit


@dataclass(frozen=True)
class BackboneInput:
    """The images that the weights of a backbone were made for.

    Attributes:
        size: height and width; None if any.
        mean: mean of each channel, of images scaled to 0 … 1; None takes the dataset's.
        std: standard deviation of each channel, likewise.
    """

    size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def remark(self, image_shape: Sequence[int]) -> str:
        """Return a remark for images of another size; empty for the right one."""
        sizes = image_shape[1:]
        if self.size is None or set(sizes) <= {self.size}:
            return ""
        side = str(sizes[0]) if len(set(sizes)) == 1 else "×".join(map(str, sizes))
        return f"the backbone's input is {side}, and its weights were made for {self.size}"


# No base `abc.ABC`: libraries that subclass it with a base of their own put ABC before Module, or after it.
class Backbone(nn.Module, metaclass=abc.ABCMeta):
    """Maps images to features.

    Args:
        config: an instance of `Config`.
        image_shape: (C, H, W); (D,) for a backbone that takes vectors.

    Raises:
        Unfit: the data are vectors, and the backbone takes images only.
    """

    Config: ClassVar[type[Config]] = Config
    #: D, the length of a feature vector; set by the constructor.
    features: int
    #: (C, h, w) of the maps that the features are, flattened; None for features that are no maps.
    map_shape: tuple[int, int, int] | None = None
    #: Whether queries are normalised by statistics of the support set, which must then be in the same batch.
    needs_support: bool = False
    #: Whether, at test, the features of an image depend on that image only; images of several episodes may then be
    #: embedded in one pass.
    per_image: bool = False
    #: Whether a CPU, too, differentiates the inner loops of several episodes faster by `torch.vmap` than one by one.
    vectorises: bool = False
    #: Whether its weights stay as they are: no gradient, no inner loop, no running average changes them.
    frozen: bool = False
    #: Whether its construction draws random numbers; pretrained weights are not drawn.
    draws: bool = True
    #: The images that its weights were made for: the engine scales by its mean and std, and notes another size.
    input: BackboneInput = BackboneInput()
    #: The images that its weights were pretrained on, e.g. ``"ImageNet-1k"``; empty of weights drawn at random.
    pretrained_on: str = ""
    #: Dtype of convolutions and matrix products; weights, gradients and features stay in float32. The engine sets it;
    #: None means float32.
    autocast: torch.dtype | None = None

    #: Whether it takes vectors, too, for datasets whose rows are no images.
    takes_vectors: ClassVar[bool] = False

    def __init__(self, config: Any, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(image_shape) == 1 and not self.takes_vectors:
            raise Unfit(f"{type(self).__name__} takes images, and the dataset has vectors of {image_shape[0]} numbers")
        self.config = config

    def __call__(self, x: Tensor, support: int | None = None) -> Tensor:
        """Return the float32 features of `forward`, computed in the precision of `autocast`."""
        if self.autocast is None:
            return super().__call__(x, support)  # type: ignore[no-any-return]
        with torch.autocast(x.device.type, self.autocast):
            features: Tensor = super().__call__(x, support)
        return features.float()

    def train(self, mode: bool = True) -> Backbone:
        """Set the training mode; a frozen backbone stays in eval mode."""
        return super().train(mode and not self.frozen)

    @abc.abstractmethod
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """Map [n, C, H, W] images to [n, D] features.

        The images are of one episode; at test, those of a `per_image` backbone may be of several.

        Args:
            x: the images, the support set first.
            support: number of support images, for normalisations by their statistics; None if all are support images.
        """


def embed_queries(backbone: Backbone, support_x: Tensor, query_x: Tensor) -> Tensor:
    """Embed [M, C, H, W] queries to [M, D] features.

    The support set is embedded with them only if the backbone needs it.
    """
    if not backbone.needs_support:
        return backbone(query_x)
    return embed_episode(backbone, support_x, query_x)[1]


def embed_episode(backbone: nn.Module, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
    """Embed all images of one episode in one pass.

    Args:
        backbone: the backbone.
        support_x: [S, C, H, W] support images.
        query_x: [M, C, H, W] queries.

    Returns:
        [S, D] features of the support images and [M, D] features of the queries.
    """
    features = backbone(torch.cat([support_x, query_x]), support=len(support_x))
    support, query = features.split([len(support_x), len(query_x)])
    return support, query
