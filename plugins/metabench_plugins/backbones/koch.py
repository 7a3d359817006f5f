"""The convolutional network of Koch, Zemel & Salakhutdinov 2015 (figure 4)."""

from __future__ import annotations

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Backbone, Config, Unfit
from metabench_plugins.backbones.layout import channels_last, halved

#: Height and width of the filters of each convolution, which does not pad; all but the last one are pooled.
_FILTERS = (10, 7, 4, 4)


class KochConfig(Config):
    """Parameters of `Koch`.

    Attributes:
        channels: numbers of channels of the four convolutions.
    """

    channels: list[PositiveInt] = Field(default=[64, 128, 128, 256], min_length=4, max_length=4)


class Koch(Backbone):
    """Map [n, C, H, W] images to [n, D] features by four convolutions with large filters and ReLU.

    D is 9 216 for images of 105×105 pixels. The fully connected layer of 4096 units is part of
    `metabench_plugins.algorithms.siamese.Siamese`.

    The paper draws filters and biases from normal distributions; here, they are torch's own.

    Raises:
        Unfit: the image is too small for the filters.
    """

    Config = KochConfig

    def __init__(self, config: KochConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        height, width = (_side(side) for side in image_shape[1:])
        if min(height, width) < 1:
            raise Unfit(f"the filters of koch need images of at least 65×65 pixels, not {image_shape[1:]}")
        inputs = [image_shape[0], *config.channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(given, channels, size)
            for given, channels, size in zip(inputs, config.channels, _FILTERS, strict=False)
        )
        self.per_image = True
        self.features = config.channels[-1] * height * width

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        x = channels_last(x)
        for number, convolution in enumerate(self.convolutions):
            x = F.relu_(convolution(x))
            if number < len(_FILTERS) - 1:
                x = halved(x)
        return x.flatten(1)


def _side(side: int) -> int:
    """Return the height or width of the last map, 0 or less for a small image."""
    for size in _FILTERS[:-1]:
        side = (side - size + 1) // 2
    return side - _FILTERS[-1] + 1
