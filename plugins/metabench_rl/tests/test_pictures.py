"""Pictures of a test: paths in the plane, or an animation."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from metabench_rl import testing
from metabench_rl.api import Tasks, Trajectories
from metabench_rl.environments.point2d import Point2D
from metabench_rl.pictures import Picture, picture


class Shown(Point2D):
    """Shows a grey picture for each action, which gets brighter."""

    def frames(self, tasks: Tasks, actions: Tensor) -> Sequence[npt.NDArray[np.uint8]]:
        return [np.full((6, 8, 3), 20 * step, dtype=np.uint8) for step in range(actions.shape[2])]


def results_of(observation: int, success: bool = False, tasks: int = 2) -> testing.Tested:
    """Return three rounds of two episodes of five steps."""
    places = torch.linspace(0, 0.5, 5).view(1, 1, 5, 1).expand(tasks, 2, 5, observation)
    numbers = torch.ones(tasks, 2, 5)
    ended = torch.full((tasks, 2), success)
    episodes = Trajectories(places, places[..., :2], numbers, numbers, numbers, ended)
    return testing.Tested({}, [episodes] * 3, torch.full((tasks, 2), 0.5))


def opened(drawn: Picture | None) -> Image.Image:
    assert drawn is not None
    return Image.open(io.BytesIO(drawn.png))


def test_paths_in_the_plane_have_a_row_for_each_task_and_a_panel_for_each_round() -> None:
    drawn = picture(results_of(observation=2), Point2D())
    image = opened(drawn)
    assert (image.width / image.height, getattr(image, "n_frames", 1)) == (pytest.approx(3 / 2, rel=0.02), 1)
    colours = {colour for _, colour in image.convert("RGB").getcolors() or []}
    assert {(31, 119, 180), (214, 39, 40)} <= colours, "paths are blue, goals are red"
    assert drawn is not None
    assert drawn.caption.startswith("Test episodes in the plane")


@pytest.mark.parametrize(("success", "said"), [(True, "which reaches its goal"), (False, "which does not reach")])
def test_other_observations_are_shown_by_an_animation_of_one_episode(success: bool, said: str) -> None:
    drawn = picture(results_of(observation=3, success=success), Shown())
    image = opened(drawn)
    assert drawn is not None
    assert said in drawn.caption
    assert (image.size, getattr(image, "n_frames", 1)) == ((8, 6), 5)
    image.seek(4)
    assert image.convert("RGB").getpixel((0, 0)) == (80, 80, 80), "each picture keeps its colours"


def test_a_family_that_shows_nothing_has_no_picture() -> None:
    assert picture(results_of(observation=3), Point2D()) is None


def test_meta_world_is_rendered_only_where_the_user_has_chosen_a_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("metaworld", reason="Meta-World is not installed: pip install 'metabench-rl[metaworld]'")
    from metabench_rl.environments.metaworld import ML1

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    family = ML1("reach-v3", 8)
    tasks = family.tasks("test", [0])
    assert family.frames(tasks, torch.zeros(1, 1, 8, 4)) == ()


@pytest.mark.skipif("MUJOCO_GL" not in os.environ, reason="MUJOCO_GL names no renderer of MuJoCo, e.g. egl")
def test_an_episode_of_meta_world_is_rendered() -> None:
    pytest.importorskip("metaworld", reason="Meta-World is not installed: pip install 'metabench-rl[metaworld]'")
    from metabench_rl.environments.metaworld import ML1

    family = ML1("reach-v3", 8)
    tasks = family.tasks("test", [0])
    still, moved = (family.frames(tasks, torch.full((1, 1, 8, 4), value)) for value in (0.0, 1.0))
    assert [frame.shape for frame in moved] == [(180, 240, 3)] * 3
    assert np.array_equal(still[0], moved[0])
    assert not np.array_equal(still[2], moved[2])
