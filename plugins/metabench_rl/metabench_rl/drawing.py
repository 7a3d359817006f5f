"""Numbers that are functions of a key and a number: goals of tasks, and noise of actions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def generator(key: str, number: int) -> np.random.Generator:
    """Return a counter-based generator (Philox 4×64) at a place that key and number alone decide."""
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little"), counter=[0, 0, 0, number]))


def uniforms(key: str, numbers: Sequence[int], count: int) -> npt.NDArray[np.float64]:
    """Return [n, count] uniform numbers between 0 and 1, a row for each number."""
    return np.stack([generator(key, number).random(count) for number in numbers])


def noise(key: str, numbers: Sequence[int], episodes: int, horizon: int, action: int) -> Tensor:
    """Return [B, T, H, A] normal numbers: those of a task are a function of key and task, and begin the same for all T.

    Args:
        key: names the phase.
        numbers: the numbers of the B tasks.
        episodes: T, episodes of each task.
        horizon: H, steps of an episode.
        action: A, numbers of an action.
    """
    shape = (episodes, horizon, action)
    return torch.from_numpy(np.stack([generator(key, n).standard_normal(shape, np.float32) for n in numbers]))


def training_numbers(key: str, update: int, count: int, available: int | None) -> list[int]:
    """Return the tasks of an update, all different where their number is given.

    Args:
        key: names the training seed.
        update: number of the update.
        count: number of tasks.
        available: number of training tasks; None for any number.
    """
    rng = generator(key, update)
    if available is None:
        # Two equal ones: once in 10 million updates of 20 tasks.
        return [int(number) for number in rng.integers(0, 2**31, count)]
    return [int(number) for number in rng.permutation(available)[:count]]
