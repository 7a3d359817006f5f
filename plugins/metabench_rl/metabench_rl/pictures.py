"""Pictures of trajectories in the plane."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw
from torch import Tensor

from metabench_rl.testing import Tested

#: Pixels of the side of one panel, and between two.
_SIDE, _GAP = 180, 8
#: Tasks, and episodes of each, that are drawn.
_TASKS, _EPISODES = 4, 5
#: The largest coordinate that a panel shows.
_REACH = 0.8
#: What a picture shows.
CAPTION = (
    "Test episodes in the plane: a row for each of the first tasks, a panel before any adaptation and after each "
    "round. Paths in blue begin in the middle; the goal, which the policy does not see, is red."
)
_BLUE, _RED, _GREY = (31, 119, 180), (214, 39, 40), (200, 200, 200)


def picture(tested: Tested) -> bytes | None:
    """Return a PNG of the first tasks: a row for each task, a panel for each round of adaptation.

    Returns:
        The file; None of tasks that are not in the plane.
    """
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
    return file.getvalue()


def _pixel(place: Tensor, left: int, top: int) -> tuple[float, float]:
    """Return the pixel of a place, within its panel."""
    x, y = ((place.clamp(-_REACH, _REACH) / _REACH + 1) / 2 * _SIDE).tolist()
    return left + x, top + _SIDE - y
