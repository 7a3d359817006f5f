"""Pictures of a test: trajectories in the plane, or an episode that moves."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from metabench_rl.api import TaskFamily
from metabench_rl.testing import Tested

#: Pixels of the side of one panel, and between two.
_SIDE, _GAP = 180, 8
#: Tasks, and episodes of each, that are drawn.
_TASKS, _EPISODES = 4, 5
#: The largest coordinate that a panel shows.
_REACH = 0.8
#: Pictures a second of an animation, colours, and seconds that the last picture stays.
_RATE, _COLOURS, _REST = 10, 64, 2
_BLUE, _RED, _GREY = (31, 119, 180), (214, 39, 40), (200, 200, 200)


@dataclass(frozen=True)
class Picture:
    """A picture of a test.

    Attributes:
        png: a PNG file, which may be animated.
        caption: what it shows.
    """

    png: bytes
    caption: str


def picture(tested: Tested, family: TaskFamily) -> Picture | None:
    """Return a picture of a test: its paths in the plane, or else an animation; None where neither can be drawn."""
    return _paths(tested) or _animation(tested, family)


def _paths(tested: Tested) -> Picture | None:
    """Return the first tasks: a row for each task, a panel for each round of adaptation; None outside the plane."""
    first = tested.first[0]
    if first.observations.shape[-1] != 2 or tested.goals.shape[-1] != 2:
        return None
    tasks = min(_TASKS, len(tested.goals))
    width, height = len(tested.first) * (_SIDE + _GAP) + _GAP, tasks * (_SIDE + _GAP) + _GAP
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for task in range(tasks):
        for number, episodes in enumerate(tested.first):
            left, top = _GAP + number * (_SIDE + _GAP), _GAP + task * (_SIDE + _GAP)
            draw.rectangle((left, top, left + _SIDE, top + _SIDE), outline=_GREY)
            for places, alive in zip(
                episodes.observations[task, :_EPISODES], episodes.alive[task, :_EPISODES], strict=True
            ):
                line = [_pixel(place, left, top) for place in places[alive > 0]]
                draw.line(line, fill=_BLUE)
            x, y = _pixel(tested.goals[task], left, top)
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_RED)
    file = io.BytesIO()
    image.save(file, "PNG")
    caption = (
        "Test episodes in the plane: a row for each of the first tasks, a panel before any adaptation and after each "
        "round. Paths in blue begin in the middle; the goal, which the policy does not see, is red."
    )
    return Picture(file.getvalue(), caption)


def _animation(tested: Tested, family: TaskFamily) -> Picture | None:
    """Return an episode of the first task after the last round; None where the family shows nothing."""
    frames = family.frames(family.tasks("test", [0]), tested.first[-1].actions[:1, :1])
    if not frames:
        return None
    # An animated PNG has one palette.
    colours = Image.fromarray(np.concatenate(frames)).quantize(_COLOURS)
    first, *others = (Image.fromarray(frame).quantize(palette=colours) for frame in frames)
    file = io.BytesIO()
    durations = [1000 // _RATE] * len(others) + [1000 * _REST]
    first.save(file, "PNG", save_all=True, append_images=others, duration=durations, loop=0)
    success = "reaches" if bool(tested.first[-1].success[0, 0]) else "does not reach"
    caption = f"An episode of the first test task after the last round of adaptation, which {success} its goal."
    return Picture(file.getvalue(), caption)


def _pixel(place: Tensor, left: int, top: int) -> tuple[float, float]:
    """Return the pixel of a place, within its panel."""
    x, y = ((place.clamp(-_REACH, _REACH) / _REACH + 1) / 2 * _SIDE).tolist()
    return left + x, top + _SIDE - y
