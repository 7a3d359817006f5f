"""Draw batches of images as indices, epoch by epoch; imports no torch."""

from __future__ import annotations

import hashlib

import numpy as np

from metabench.data.sampler import IntArray

#: One Philox counter yields four 64-bit words; each epoch uses a whole number of counters.
_WORDS_PER_COUNTER = 4


def steps_an_epoch(images: int, batch: int) -> int:
    """Return the number of batches of an epoch.

    Batches are whole: the images that are left over wait for the next epoch, whose order is another. Fewer images than
    a batch are one batch.
    """
    return max(1, images // batch)


class Permutations:
    """Draws the order of images in epoch i as a pure function of its arguments.

    The random words come from a counter-based generator (Philox 4x64; Salmon et al. 2011), started at the counter of
    epoch i; the order of the words is that of the images.

    Args:
        images: number of images.
        stream: name of the sequence (split, and names and sizes of its classes).
        seed: seed of the sequence.
    """

    def __init__(self, images: int, stream: str, seed: int) -> None:
        self._images = images
        self._key = int.from_bytes(hashlib.sha256(f"{stream}|images|{seed}".encode()).digest()[:16], "little")
        self._last: tuple[int, IntArray] | None = None

    def epoch(self, number: int) -> IntArray:
        """Return the [images] indices of all images, in the order of an epoch."""
        if self._last is None or self._last[0] != number:
            counters = -(-self._images // _WORDS_PER_COUNTER)
            words = np.random.Philox(key=self._key, counter=number * counters).random_raw(self._images)
            self._last = number, np.argsort(words, kind="stable").astype(np.int64)
        return self._last[1]

    def batch(self, step: int, size: int) -> IntArray:
        """Return the [min(size, images)] indices of a step's images."""
        epoch, number = divmod(step, steps_an_epoch(self._images, size))
        return self.epoch(epoch)[number * size : (number + 1) * size]
