"""A picture of regression episodes: support points, the true curve and the fitted one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from metabench.analysis.stats import Floats
from metabench.api import Algorithm
from metabench.engine.asking import predict
from metabench.engine.sources import SourceStream

#: Queries that draw a curve.
_POINTS = 200
#: Size of a panel and its margins in pixels, and how much larger it is drawn, so that lines are smooth.
_WIDTH, _HEIGHT, _LEFT, _BELOW, _ABOVE, _FINER = 250, 170, 26, 14, 16, 3
_PAPER, _INK, _FRAME, _TRUE, _FITTED = "white", (40, 40, 48), (190, 190, 198), (150, 150, 160), (0, 114, 178)


@dataclass(frozen=True)
class Curve:
    """An episode of one input and one output.

    Attributes:
        number: number of the episode.
        support: [S, 2] support points.
        true: [n, 2] points of the true curve, sorted.
        fitted: [n, 2] points of the fitted curve, sorted.
    """

    number: int
    support: Floats
    true: Floats
    fitted: Floats


def curves_png(algorithm: Algorithm, stream: SourceStream, numbers: Sequence[int], seed: int) -> bytes | None:
    """Draw episodes of a regression side by side, with one scale.

    Args:
        algorithm: the trained algorithm.
        stream: the test episodes.
        numbers: numbers of the episodes.
        seed: seed of the algorithm's random draws.

    Returns:
        A PNG file; None where an episode has more than one input or output.
    """
    if stream.image_shape != (1,) or stream.task.outputs != 1:
        return None
    return drawn([_curve(algorithm, stream, number, seed) for number in dict.fromkeys(numbers)])


def _curve(algorithm: Algorithm, stream: SourceStream, number: int, seed: int) -> Curve:
    episode = stream.dense(number, _POINTS)
    answers = predict(algorithm, episode, seed, number)

    def points(x: object, y: object) -> Floats:
        pairs = np.stack([np.asarray(part, dtype=np.float64)[0, :, 0] for part in (x, y)], axis=1)
        ordered: Floats = pairs[pairs[:, 0].argsort()]
        return ordered

    return Curve(
        number,
        support=points(episode.support_x.cpu(), episode.support_y.cpu()),
        true=points(episode.query_x.cpu(), episode.query_y.cpu()),
        fitted=points(episode.query_x.cpu(), answers.cpu()),
    )


def drawn(curves: Sequence[Curve]) -> bytes:
    """Draw curves side by side as a PNG file: support points, the true curve in grey, the fitted one in blue.

    The vertical scale holds the true curves; a fitted curve that leaves it is cut.
    """
    low, high = _bounds([part[:, 0] for curve in curves for part in (curve.support, curve.true)], 0.0)
    bottom, top = _bounds([part[:, 1] for curve in curves for part in (curve.support, curve.true)], 0.25)
    canvas = Image.new("RGB", (len(curves) * _WIDTH * _FINER, _HEIGHT * _FINER), _PAPER)
    inner = (_WIDTH - _LEFT - 6) * _FINER, (_HEIGHT - _ABOVE - _BELOW) * _FINER
    for place, curve in enumerate(curves):
        panel = Image.new("RGB", inner, _PAPER)
        draw = ImageDraw.Draw(panel)

        def at(points: Floats) -> list[tuple[float, float]]:
            x = (points[:, 0] - low) / (high - low) * (inner[0] - 1)
            y = (top - points[:, 1]) / (top - bottom) * (inner[1] - 1)
            # Far beyond the panel a line is cut anyway, and the drawing library cannot hold larger numbers.
            return list(zip(x.tolist(), np.clip(y, -inner[1], 2 * inner[1]).tolist(), strict=True))

        draw.line(at(curve.true), fill=_TRUE, width=2 * _FINER)
        draw.line(at(curve.fitted), fill=_FITTED, width=2 * _FINER)
        for x, y in at(curve.support):
            radius = 2.5 * _FINER
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_INK)
        draw.rectangle((0, 0, inner[0] - 1, inner[1] - 1), outline=_FRAME, width=_FINER)
        canvas.paste(panel, ((place * _WIDTH + _LEFT) * _FINER, _ABOVE * _FINER))
    small = canvas.resize((len(curves) * _WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
    _label(small, curves, (low, high), (bottom, top))
    file = io.BytesIO()
    small.quantize(48, Image.Quantize.FASTOCTREE).save(file, "PNG", optimize=True)
    return file.getvalue()


def _label(image: Image.Image, curves: Sequence[Curve], x: tuple[float, float], y: tuple[float, float]) -> None:
    """Write the numbers of the episodes and the ends of the axes."""
    draw = ImageDraw.Draw(image)
    for place, curve in enumerate(curves):
        left, right = place * _WIDTH + _LEFT, (place + 1) * _WIDTH - 6
        draw.text((left, 2), f"episode {curve.number}", fill=_INK)
        for value, height, anchor in ((y[1], _ABOVE, "ra"), (y[0], _HEIGHT - _BELOW, "rd")):
            draw.text((left - 3, height), f"{value:.1f}", fill=_INK, anchor=anchor)
        for value, width, anchor in ((x[0], left, "ld"), (x[1], right, "rd")):
            draw.text((width, _HEIGHT - 1), f"{value:.1f}", fill=_INK, anchor=anchor)


def _bounds(parts: Sequence[Floats], margin: float) -> tuple[float, float]:
    """Return the lowest and highest number, and a margin, as a share of their distance."""
    low, high = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
    beyond = margin * (high - low) or (0.0 if high > low else 1.0)
    return low - beyond, high + beyond
