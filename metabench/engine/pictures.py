"""A picture of one episode: its support images and misclassified queries."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

#: Height in pixels: smaller images are enlarged by a whole factor to at least this, larger ones are shrunk to it.
_HEIGHT = 40
#: Largest number of support images and of misclassified queries shown per class.
_SUPPORT, _WRONG = 5, 8
_MARGIN, _CAPTION = 3, 12
#: Colours of the file's palette: a quarter of the bytes of true colour, without a visible difference.
_COLOURS = 48
_PAPER, _INK, _FAULT = "white", "black", (190, 30, 45)


def episode_png(
    support_x: npt.NDArray[np.float32],
    support_y: Sequence[int],
    query_x: npt.NDArray[np.float32],
    query_y: Sequence[int],
    predicted: Sequence[int],
) -> bytes:
    """Draw the support images and the misclassified queries of an episode.

    Each class is a row: its number, its first support images, then its first misclassified queries, each above the
    number of the predicted class.

    Args:
        support_x: [S, C, H, W] support images.
        support_y: [S] labels of the support images.
        query_x: [M, C, H, W] queries.
        query_y: [M] labels of the queries.
        predicted: [M] predicted labels.

    Returns:
        A PNG file.
    """
    low = float(min(support_x.min(), query_x.min()))
    high = float(max(support_x.max(), query_x.max()))
    height, width = support_x.shape[2:]
    scale = -(-_HEIGHT // height) if height < _HEIGHT else _HEIGHT / height
    height, width = round(scale * height), max(1, round(scale * width))
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    classes = sorted(set(support_y))
    shots = min(_SUPPORT, max(sum(label == c for label in support_y) for c in classes))
    row_height, column_width, left = height + _CAPTION + _MARGIN, width + _MARGIN, 26
    gap = 12
    canvas = Image.new(
        "RGB",
        (left + (shots + _WRONG) * column_width + gap, len(classes) * row_height + _MARGIN),
        _PAPER,
    )
    draw = ImageDraw.Draw(canvas)

    def paste(image: npt.NDArray[np.float32], column: int, row: int, caption: str = "") -> None:
        x = left + column * column_width + (gap if caption else 0)
        y = _MARGIN + row * row_height
        grey = (np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
        pixels = grey[[0, 0, 0]] if len(grey) != 3 else grey
        canvas.paste(Image.fromarray(pixels.transpose(1, 2, 0)).resize((width, height), method), (x, y))
        if caption:
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=_FAULT)
            draw.text((x + 1, y + height), caption, fill=_FAULT)

    for row, label in enumerate(classes):
        draw.text((4, _MARGIN + row * row_height + height // 2 - 5), str(label + 1), fill=_INK)
        members = [i for i, other in enumerate(support_y) if other == label]
        for column, i in enumerate(members[:_SUPPORT]):
            paste(support_x[i], column, row)
        wrong = [i for i, other in enumerate(query_y) if other == label and predicted[i] != label]
        for column, i in enumerate(wrong[:_WRONG]):
            paste(query_x[i], shots + column, row, f"as {predicted[i] + 1}")
    file = io.BytesIO()
    canvas.quantize(_COLOURS, Image.Quantize.FASTOCTREE).save(file, "PNG", optimize=True)
    return file.getvalue()
