"""A picture of one episode: what the support images were, and which queries were taken for what."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

#: Images are enlarged by whole numbers to at least this height in pixels, and larger ones shrunk to it.
_HEIGHT = 40
#: Support images and wrong queries of one class that are shown.
_SUPPORT, _WRONG = 5, 8
_MARGIN, _CAPTION = 3, 12
#: Of the file: a quarter of the bytes, and nobody sees it.
_COLOURS = 48
_PAPER, _INK, _FAULT = "white", "black", (190, 30, 45)


def episode_png(
    support_x: npt.NDArray[np.float32],
    support_y: Sequence[int],
    query_x: npt.NDArray[np.float32],
    query_y: Sequence[int],
    predicted: Sequence[int],
) -> bytes:
    """Draw one row a class: its number, its support images, then its queries that were taken for another class.

    Under a query stands the number of the class that it was taken for. A class with many shows the first few.

    Args:
        support_x: [S, C, H, W] images.
        support_y: [S] labels.
        query_x: [M, C, H, W] images.
        query_y: [M] labels.
        predicted: [M] labels.

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

    def show(image: npt.NDArray[np.float32], column: int, row: int, caption: str = "") -> None:
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
            show(support_x[i], column, row)
        wrong = [i for i, other in enumerate(query_y) if other == label and predicted[i] != label]
        for column, i in enumerate(wrong[:_WRONG]):
            show(query_x[i], shots + column, row, f"as {predicted[i] + 1}")
    file = io.BytesIO()
    canvas.quantize(_COLOURS).save(file, "PNG", optimize=True)
    return file.getvalue()
