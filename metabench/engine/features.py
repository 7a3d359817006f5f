"""Features of a frozen backbone: each split is embedded once, and kept on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from metabench.api import Algorithm, Backbone, Rows, SourceSplit, Split, TensorRows
from metabench.engine.feature_store import FeatureStore, mapped, stored
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.scaling import Scale
from metabench.errors import CellFailed
from metabench.machine.clock import Stopwatch

#: Number of episodes of features that a CPU computes at once: one episode is too small to keep it busy.
FEATURES_AT_ONCE = 64
#: Number of episodes with as many images as a test split may have to be embedded once.
_WORTH = 200
#: Largest number of pixels that a CPU embeds in one pass: activations then stay in its cache.
_PIXELS_AT_ONCE = 2**19
#: Number of images that a GPU embeds in one pass.
_GPU_AT_ONCE = 256
#: Number of images that are embedded alone, too, and the largest difference of features, as a share of their range.
_ALONE, _TOLERANCE = 8, 1e-4


def images_at_once(shape: tuple[int, ...], device: torch.device) -> int:
    """Return the number of images that a device embeds in one pass.

    Args:
        shape: (C, H, W) of images, or (D,) of vectors.
        device: the device.
    """
    pixels = shape[-1] * (shape[-2] if len(shape) > 1 else 1)
    return max(1, _PIXELS_AT_ONCE // pixels) if device.type == "cpu" else _GPU_AT_ONCE


class FeatureRows(Rows):
    """The features of a split's images, embedded when a stream of episodes is made of them.

    Args:
        split: the split of images.
        name: its name.
        backbone: the frozen backbone.
        store: the place of the features.
        device: the device that embeds.
        watcher: sees the progress, and may ask to stop.

    Attributes:
        images: the split of images.
    """

    def __init__(
        self,
        split: Split,
        name: str,
        backbone: Backbone,
        store: FeatureStore,
        device: torch.device,
        watcher: Watcher | None = None,
    ) -> None:
        self.images = split
        self.shape, self.dtype = (backbone.features,), torch.float32
        self._name, self._backbone, self._store = name, backbone, store
        self._device, self._watcher = device, watcher
        self._rows: Rows | None = None

    def __len__(self) -> int:
        return len(self.images.rows)

    def take(self, index: Tensor) -> Tensor:
        """See `Rows.take`."""
        return self.embedded().take(index)

    def embedded(self) -> Rows:
        """Return the features; embed the images at the first call, unless they are on disk.

        Raises:
            CellFailed: the features cannot be stored, or the features of an image depend on others.
            Interrupted: the watcher asked to stop.
        """
        if self._rows is None:
            path = self._store.path(self.images, self._name, self._backbone)
            if path is None:
                self._rows = TensorRows(torch.cat(list(self._parts())))
            else:
                form = (len(self), *self.shape)
                self._rows = mapped(path, form) or stored(path, form, self._parts(), self._watcher)
        return self._rows

    @torch.no_grad()
    def _parts(self) -> Iterator[Tensor]:
        """Yield the [k, D] features of all images, some at a time."""
        rows, scale = self.images.rows, Scale(self.images, self._device)
        self._backbone.eval()
        if self._watcher is not None:
            self._watcher.phase(f"embed {self._name}", len(self))
        done = 0
        for part in torch.split(torch.arange(len(self)), images_at_once(rows.shape, self._device)):
            x = scale(rows.take(part).to(self._device))
            features = self._backbone(x)
            if not done:
                self._check_alone(x[:_ALONE], features[:_ALONE])
            done += len(part)
            yield features
            if self._watcher is not None:
                self._watcher.advance(done)
                if self._watcher.should_stop():
                    raise Interrupted

    def _check_alone(self, x: Tensor, features: Tensor) -> None:
        """Check that images have the same features alone.

        Raises:
            CellFailed: they have others.
        """
        alone = torch.cat([self._backbone(image) for image in torch.split(x, 1)])
        moved = float((alone - features).abs().max())
        if moved > _TOLERANCE * float((features.max() - features.min()).clamp_min(1e-12)):
            raise CellFailed(
                f"the features of an image depend on the other images of the pass (they move by up to {moved:.2g}): "
                "a backbone is per_image only if no other image moves the features of one"
            )


class ImaginedFeatures(FeatureRows):
    """Random numbers in the place of features, where only the time of what reads them matters."""

    def take(self, index: Tensor) -> Tensor:
        """See `Rows.take`."""
        return torch.rand(*index.shape, *self.shape)

    def embedded(self) -> Rows:
        """Return the imagined features themselves: no image is embedded."""
        return self


def seconds_to_embed(split: Split, backbone: Backbone, device: torch.device) -> float:
    """Return the expected seconds of embedding all images of a split, from the second pass over a few of them."""
    few = torch.arange(min(len(split.rows), images_at_once(split.rows.shape, device)))
    x = Scale(split, device)(split.rows.take(few).to(device))
    watch = Stopwatch(device)
    with torch.no_grad():
        backbone.eval()(x[:1])
        with watch.running():
            backbone(x)
    return watch.seconds * len(split.rows) / len(few)


def may_embed_once(algorithm: Algorithm, split: Split) -> bool:
    """Return whether features of single images may stand for the images of a split.

    The algorithm reads them only, they depend on one image each, and there are fewer of them than pixels: those of a
    backbone that passes the pixels on would only take four times the bytes.
    """
    backbone = algorithm.backbone
    return algorithm.reads == "features" and backbone.per_image and backbone.features < math.prod(split.rows.shape)


def with_features(
    splits: Mapping[str, Split | SourceSplit],
    algorithm: Algorithm,
    store: FeatureStore,
    device: torch.device,
    watcher: Watcher,
    fixed: bool = False,
    distorted: bool = False,
) -> dict[str, Split | SourceSplit]:
    """Return the splits with features in the place of images, where the algorithm reads nothing else of them.

    So it is for an algorithm that reads features of a `per_image` backbone that stays as it is.

    Args:
        splits: the splits of images.
        algorithm: the algorithm with its weights.
        store: the place of the features.
        device: the device that embeds.
        watcher: sees the progress, and may ask to stop.
        fixed: whether a backbone that is not frozen stays as it is.
        distorted: whether training images are distorted, and so have new features each time.
    """
    backbone = algorithm.backbone
    test = splits["test"]
    if isinstance(test, SourceSplit) or not (may_embed_once(algorithm, test) and (backbone.frozen or fixed)):
        return dict(splits)
    return {
        name: split
        if isinstance(split, SourceSplit) or (name == "train" and distorted)
        else replace(split, images=FeatureRows(split, name, backbone, store, device, watcher))
        for name, split in splits.items()
    }


def is_embedded_once(split: Split | SourceSplit, algorithm: Algorithm, images: int) -> bool:
    """Return whether a test with a trained backbone embeds its split first.

    Args:
        split: the test split.
        algorithm: the algorithm.
        images: number of images of one episode.
    """
    return isinstance(split, Split) and may_embed_once(algorithm, split) and len(split.rows) <= _WORTH * images


def embedded_once(
    splits: Mapping[str, Split | SourceSplit],
    algorithm: Algorithm,
    images: int,
    device: torch.device,
    watcher: Watcher | None = None,
) -> Mapping[str, Split | SourceSplit]:
    """Return the splits with the features of the test split, where that embeds fewer images than `_WORTH` episodes.

    For a trained backbone that is `per_image`. Features stay in memory: other weights have others. Embedding is nearly
    all of a test: ProtoNet's of 600 episodes of 80 images, from 2 000 images of 28×28, takes .06 s instead of .83. The
    number of test episodes does not decide: a test that grows gives the same results as a longer one.

    Args:
        splits: the splits.
        algorithm: the trained algorithm.
        images: number of images of one episode.
        device: the device that embeds.
        watcher: sees the progress, and may ask to stop.
    """
    split = splits["test"]
    if isinstance(split, SourceSplit) or isinstance(split.rows, FeatureRows):
        return splits
    if not is_embedded_once(split, algorithm, images):
        return splits
    rows = FeatureRows(split, "test", algorithm.backbone, FeatureStore(None, ""), device, watcher)
    return {**splits, "test": replace(split, images=rows)}
