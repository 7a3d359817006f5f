"""Generated characters, so that a first run needs no data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from metabench.api import Dataset, DatasetFiles, Pack, Progress, Split, SplitSize

Floats = npt.NDArray[np.float64]

_SPLITS: Mapping[str, int] = {"train": 200, "val": 50, "test": 100}
_DRAWINGS = 20
_SIZE = 28
_STROKES = 4
_SAMPLES = 48
_SEED = 1623

#: Coordinates of curves are rounded to 1/64 pixel. All later arithmetic is exact, so that every machine generates the
#: same images with the same fingerprint.
_SUBPIXELS = 64


class Glyphs(Dataset):
    """350 invented characters, each drawn by 20 drawers.

    Images are [1, 28, 28] uint8, light strokes on black. A character is a program of 2 to 4 strokes (cubic Bézier
    curves). A drawer perturbs the control points, slants, rotates, scales and shifts the character, and uses their own
    width of pen: a minimal form of Omniglot's generative model (Lake, Salakhutdinov & Tenenbaum 2015). Train, val and
    test have 200, 50 and 100 characters. The dataset is for trials and tests; no paper reports results on it.
    """

    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        """Draw all [7000, 1, 28, 28] images, without any files."""
        rng = np.random.Generator(np.random.PCG64(_SEED))
        classes = sum(_SPLITS.values())
        images = np.empty((classes * _DRAWINGS, 1, _SIZE, _SIZE), np.uint8)
        for index in range(classes):
            curves = _draw(rng, _invent(rng))
            radius = rng.uniform(0.6, 1.1, size=_DRAWINGS)
            images[index * _DRAWINGS : (index + 1) * _DRAWINGS, 0] = _render(curves, radius)
            progress(index + 1, classes, "drawing glyphs")
        return Pack(
            images=images,
            offsets=np.arange(classes + 1, dtype=np.int64) * _DRAWINGS,
            class_names=tuple(f"glyph{index:03d}" for index in range(classes)),
        )

    def split(self, pack: Pack) -> Mapping[str, Split]:
        """Return 200 train, 50 val and 100 test characters."""
        splits = {}
        first = 0
        for name, classes in _SPLITS.items():
            last = first + classes
            splits[name] = Split(
                # Copy the images: torch cannot share memory with a read-only array.
                images=torch.tensor(pack.images[first * _DRAWINGS : last * _DRAWINGS]),
                offsets=torch.arange(classes + 1) * _DRAWINGS,
                class_names=pack.class_names[first:last],
            )
            first = last
        return splits

    def sizes(self) -> Mapping[str, SplitSize]:
        """Return the sizes of the splits."""
        return {name: SplitSize(classes, _DRAWINGS) for name, classes in _SPLITS.items()}


def _invent(rng: np.random.Generator) -> Floats:
    """Return a random character as control points of its strokes.

    Its shape is [2 to 4 strokes, 4 control points, 2]. The longer side of its bounding box extends from -1 to 1.
    """
    strokes = int(rng.integers(2, _STROKES, endpoint=True))
    points = rng.uniform(-1, 1, size=(strokes, 4, 2))
    # Centre the inner control points on the straight line, so that a stroke bends without wandering about.
    for inner, share in ((1, 1 / 3), (2, 2 / 3)):
        straight = (1 - share) * points[:, 0] + share * points[:, 3]
        points[:, inner] = straight + 0.8 * points[:, inner]
    # Half of the strokes begin where the previous one ended, as in handwriting.
    for stroke in range(1, strokes):
        if rng.random() < 0.5:
            points[stroke, 0] = points[stroke - 1, 3]
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    centred: Floats = (2 * points - low - high) / (high - low).max()
    return centred


def _draw(rng: np.random.Generator, glyph: Floats) -> Floats:
    """Return [20, points, 2] curves of all drawers, in pixels.

    The ranges make the task learnable but not trivial: in 5-way 1-shot, the nearest neighbour in pixels reaches about
    60 %, and a small network trained for a minute about 95 %.
    """
    control = glyph + rng.uniform(-0.12, 0.12, size=(_DRAWINGS, *glyph.shape))
    t = np.linspace(0, 1, _SAMPLES)
    bernstein = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    curves = np.einsum("pk,dskx->dspx", bernstein, control).reshape(_DRAWINGS, -1, 2)

    angle, shear = rng.uniform(-0.3, 0.3, size=(2, _DRAWINGS))
    width, height = rng.uniform(0.85, 1.15, size=(2, _DRAWINGS))
    shift = rng.uniform(-2, 2, size=(_DRAWINGS, 1, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[width, width * shear], [np.zeros(_DRAWINGS), height]])
    affine = np.einsum("ijd,jkd->dki", turn, slant)
    middle = (_SIZE - 1) / 2
    pixels: Floats = middle + shift + 0.8 * middle * curves @ affine
    return pixels


def _render(curves: Floats, radius: Floats) -> npt.NDArray[np.uint8]:
    """Draw curves as [n, 28, 28] antialiased images.

    Args:
        curves: [n, points, 2] coordinates in pixels.
        radius: [n] radii of the pens in pixels.
    """
    points = np.rint(curves * _SUBPIXELS).astype(np.int32)
    pixels = np.arange(_SIZE, dtype=np.int32) * _SUBPIXELS
    squared = (points[..., None] - pixels) ** 2
    nearest = np.full((len(curves), _SIZE, _SIZE), np.iinfo(np.int32).max, np.int32)
    for point in range(points.shape[1]):
        distance = squared[:, point, 1, :, None] + squared[:, point, 0, None, :]
        np.minimum(nearest, distance, out=nearest)
    ink = np.clip(radius[:, None, None] + 0.5 - np.sqrt(nearest) / _SUBPIXELS, 0, 1)
    return np.rint(255 * ink).astype(np.uint8)
