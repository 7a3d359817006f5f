"""Sinusoids of random amplitude and phase (Finn, Abbeel & Levine 2017, section 5.1)."""

from __future__ import annotations

import math

import torch
from pydantic import NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from metabench.api import Config, Episodes, EpisodeSource, Regression


class SinusoidConfig(Config):
    """Parameters of `Sinusoid`, by default those of the paper.

    Attributes:
        least_amplitude: smallest amplitude.
        most_amplitude: largest amplitude.
        most_phase: largest phase, in radians; the smallest is 0.
        span: inputs are uniform in [-span, span].
    """

    least_amplitude: NonNegativeFloat = 0.1
    most_amplitude: PositiveFloat = 5.0
    most_phase: NonNegativeFloat = math.pi
    span: PositiveFloat = 5.0

    @model_validator(mode="after")
    def _has_amplitudes(self) -> SinusoidConfig:
        if self.least_amplitude > self.most_amplitude:
            raise ValueError(f"least_amplitude ({self.least_amplitude:g}) is above {self.most_amplitude:g}")
        return self


class Sinusoid(EpisodeSource):
    """Fit y = A·sin(x - φ) to a few points; an episode is one amplitude A and one phase φ, uniformly drawn."""

    Config = SinusoidConfig
    task = Regression(outputs=1)
    input_shape = (1,)

    def draws(self, shot: int, queries: int) -> int:
        """Return an amplitude, a phase, and an input of each point."""
        return 2 + shot + queries

    def episodes(self, uniform: Tensor, split: str, shot: int, queries: int) -> Episodes:
        """See `metabench.api.EpisodeSource.episodes`; the splits have one distribution."""
        config = self.config
        amplitude = config.least_amplitude + (config.most_amplitude - config.least_amplitude) * uniform[:, :1]
        phase = config.most_phase * uniform[:, 1:2]
        inputs = config.span * (2 * uniform[:, 2:] - 1)
        x, y = (part.float().unsqueeze(-1) for part in (inputs, amplitude * torch.sin(inputs - phase)))
        return Episodes(x[:, :shot], y[:, :shot], x[:, shot:], y[:, shot:], self.task)
