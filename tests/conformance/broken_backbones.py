"""Backbones that each break one rule of the contract."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from metabench.api import Backbone, Config, Unfit

Shape = tuple[int, int, int]


class Sound(Backbone):
    """Convolution, batch norm by running averages, and pooling; breaks no rule."""

    per_image = True

    def __init__(self, config: Any, image_shape: Shape) -> None:
        super().__init__(config, image_shape)
        self.conv = nn.Conv2d(image_shape[0], 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.features = 72

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return self.pooled(self.norm(self.conv(x)))

    def pooled(self, maps: Tensor) -> Tensor:
        features: Tensor = self.pool(torch.relu(maps)).flatten(1)
        return features


class Fixed(Sound):
    """Its weights are all frozen, and its statistics, too."""

    frozen = True


class Pixels(Sound):
    """The pixels themselves, without any parameter."""

    def __init__(self, config: Any, image_shape: Shape) -> None:
        Backbone.__init__(self, config, image_shape)
        self.features = image_shape[0] * image_shape[1] * image_shape[2]

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return x.flatten(1)


class OneSize(Sound):
    """Takes 20×20 images only, and says so."""

    def __init__(self, config: Any, image_shape: Shape) -> None:
        if image_shape[1:] != (20, 20):
            raise Unfit(f"images must be 20×20, not {image_shape[1]}×{image_shape[2]}")
        super().__init__(config, image_shape)


class LargeOnly(Sound):
    """Takes 84×84 images only, and says so."""

    def __init__(self, config: Any, image_shape: Shape) -> None:
        if image_shape[1:] != (84, 84):
            raise Unfit(f"images must be 84×84, not {image_shape[1]}×{image_shape[2]}")
        super().__init__(config, image_shape)


# ------------------------------------------------------------------------------------------- one broken rule each


class LooseConfig(Config):
    model_config = ConfigDict(extra="ignore")


class Loose(Sound):
    Config = LooseConfig


class Taciturn(Sound):
    def __init__(self, config: Any, image_shape: Shape) -> None:
        if image_shape[1] < 28:
            raise Unfit("the image is too small")
        super().__init__(config, image_shape)


class Crashing(Sound):
    def __init__(self, config: Any, image_shape: Shape) -> None:
        super().__init__(config, image_shape)
        _ = 1 // max(0, image_shape[1] - 20)


class Miscounting(Sound):
    def __init__(self, config: Any, image_shape: Shape) -> None:
        super().__init__(config, image_shape)
        self.features = 71


class Averaging(Sound):
    def __init__(self, config: Any, image_shape: Shape) -> None:
        super().__init__(config, image_shape)
        self.map_shape = (8, 5, 5)


class Double(Sound):
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return super().forward(x, support).double()


class NotANumber(Sound):
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return super().forward(x, support) / (0 if x.shape[1] == 3 and not self.training else 1)


class Grey(Sound):
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return super().forward(x[:, :1], support)


class Random(Sound):
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return super().forward(x, support) * torch.rand(())


class Counting(Sound):
    calls: Tensor

    def __init__(self, config: Any, image_shape: Shape) -> None:
        super().__init__(config, image_shape)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        self.calls += 1
        return super().forward(x, support)


class Social(Sound):
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        features = super().forward(x, support)
        return features - features.mean(dim=0)


class SecretSupport(Sound):
    per_image = False

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        features = super().forward(x, support)
        return features - features[:support].mean(dim=0)


class NoneIsNone(SecretSupport):
    needs_support = True

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return super().forward(x, support or 1)


class BothWords(SecretSupport):
    """Says that features depend on the support set, and on one image only."""

    per_image = True
    needs_support = True


class Forgetful(Sound):
    def __init__(self, config: Any, image_shape: Shape) -> None:
        super().__init__(config, image_shape)
        self.projection = torch.randn(72, 72)

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return super().forward(x, support) @ self.projection


class Unseeded(Sound):
    entropy: ClassVar[torch.Generator] = torch.Generator()

    def __init__(self, config: Any, image_shape: Shape) -> None:
        super().__init__(config, image_shape)
        nn.init.normal_(self.conv.weight, generator=self.entropy)


class Detached(Sound):
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return self.pooled(self.norm(self.conv(x).detach()))


class WithoutGradient(Sound):
    @torch.no_grad()
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return super().forward(x, support)


class SteepRoot(Sound):
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return super().forward(x, support) + (0 * self.conv.bias).abs().sqrt().sum()


class Thawing(Sound):
    def train(self, mode: bool = True) -> Thawing:
        self.requires_grad_(True)
        super().train(mode)
        return self


class Drifting(Sound):
    """Halves its weights in training, whether or not they are frozen."""

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        if self.training:
            self.conv.weight.data *= 0.5
        return super().forward(x, support)


class LooseStatistics(Sound):
    frozen = True

    def train(self, mode: bool = True) -> LooseStatistics:
        nn.Module.train(self, mode)
        return self


class HalfPrecision(Sound):
    def __call__(self, x: Tensor, support: int | None = None) -> Tensor:
        with torch.autocast("cpu", self.autocast, enabled=self.autocast is not None):
            features = nn.Module.__call__(self, x, support)
        return features.to(self.autocast or torch.float32)  # type: ignore[no-any-return]


class Cancelling(Sound):
    """Subtracts two large numbers, which bfloat16 rounds to even larger steps."""

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return self.pooled(self.norm(self.conv(x + 100) - self.conv(torch.full_like(x, 100))))
