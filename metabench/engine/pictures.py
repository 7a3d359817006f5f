"""A picture of one episode: its support images and misclassified queries."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from metabench.text import plain

#: Height in pixels: smaller images are enlarged by a whole factor to at least this, larger ones are shrunk to it.
_HEIGHT = 40
#: Largest number of support images and of misclassified queries shown per class.
_SUPPORT, _WRONG = 5, 8
_MARGIN, _CAPTION, _GAP = 3, 12, 12
#: Letters of a line of a row's label, and lines of it at most; a line's height and a letter's width in pixels.
_LETTERS, _LINES, _LINE, _LETTER = 18, 4, 11, 6
#: Colours of the file's palette: a quarter of the bytes of true colour, without a visible difference.
_COLOURS = 48
_PAPER, _INK, _FAULT = "white", "black", (190, 30, 45)


def episode_png(
    support_x: npt.NDArray[np.float32],
    support_y: Sequence[int],
    query_x: npt.NDArray[np.float32],
    query_y: Sequence[int],
    predicted: Sequence[int],
    names: Sequence[str] = (),
) -> bytes:
    """Draw the support images and the misclassified queries of an episode.

    Each class is a row: its number and name, its first support images, then its first misclassified queries, each above
    the number of the predicted class. The number of images left out follows.

    Args:
        support_x: [S, C, H, W] support images.
        support_y: [S] labels of the support images.
        query_x: [M, C, H, W] queries.
        query_y: [M] labels of the queries.
        predicted: [M] predicted labels.
        names: [N] names of the classes; empty labels the rows by numbers only.

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
    labels = {label: label_lines(label, names) for label in classes}
    shots = min(_SUPPORT, max(sum(label == c for label in support_y) for c in classes))
    left = 2 * _MARGIN + _LETTER * max(len(line) for lines in labels.values() for line in lines)
    row_height, column_width = max(height + _CAPTION, _LINES * _LINE if names else 0) + _MARGIN, width + _MARGIN
    more = 4 * _LETTER
    columns = (left, left + shots * column_width + more + _GAP)
    canvas = Image.new("RGB", (columns[1] + _WRONG * column_width + more, len(classes) * row_height + _MARGIN), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default()

    def paste(image: npt.NDArray[np.float32], x: int, row: int, caption: str = "") -> None:
        y = _MARGIN + row * row_height
        canvas.paste(Image.fromarray(pixels_of(image, low, high)).resize((width, height), method), (x, y))
        if caption:
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=_FAULT)
            draw.text((x + 1, y + height), caption, fill=_FAULT, font=font)

    def note_left_out(count: int, x: int, row: int) -> None:
        if count > 0:
            draw.text((x, _MARGIN + row * row_height + height // 2 - 5), f"+{count}", fill=_INK, font=font)

    for row, label in enumerate(classes):
        for line, text in enumerate(labels[label]):
            draw.text((_MARGIN, _MARGIN + row * row_height + line * _LINE), text, fill=_INK, font=font)
        members = [i for i, other in enumerate(support_y) if other == label]
        for column, i in enumerate(members[:_SUPPORT]):
            paste(support_x[i], columns[0] + column * column_width, row)
        note_left_out(len(members) - _SUPPORT, columns[0] + shots * column_width, row)
        wrong = [i for i, other in enumerate(query_y) if other == label and predicted[i] != label]
        for column, i in enumerate(wrong[:_WRONG]):
            paste(query_x[i], columns[1] + column * column_width, row, f"as {predicted[i] + 1}")
        note_left_out(len(wrong) - _WRONG, columns[1] + _WRONG * column_width, row)
    file = io.BytesIO()
    canvas.quantize(_COLOURS, Image.Quantize.FASTOCTREE).save(file, "PNG", optimize=True)
    return file.getvalue()


def pixels_of(image: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Return the [H, W, 3] colours of a [C, H, W] image whose numbers lie between `low` and `high`."""
    grey = (np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    colours: npt.NDArray[np.uint8] = (grey[[0, 0, 0]] if len(grey) != 3 else grey).transpose(1, 2, 0)
    return colours


def label_lines(label: int, names: Sequence[str]) -> list[str]:
    """Return number and name of a class in a few short lines of ASCII, which the font of any version of Pillow has."""
    if not names:
        return [str(label + 1)]
    name = "".join(character if " " <= character <= "~" else plain(character) for character in names[label])
    lines = textwrap.wrap(f"{label + 1} {name}", _LETTERS, break_long_words=True)
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"..{lines[-1][-(_LETTERS - 2) :]}"]
    return lines
