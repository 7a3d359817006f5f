"""Training on all classes of the training split at once."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, Images, Setup


class OnBaseClasses(Algorithm):
    """An algorithm whose network learns by a linear classifier of the training classes and its cross-entropy.

    The classifier is of no use in a test, and is not built where nothing is trained.
    """

    trains_on = "images"
    reads: Literal["images", "features"] = "features"
    any_way = True

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.classes = self.new_classes(setup.backbone.features, setup.train_classes) if setup.train_steps else None

    def new_classes(self, features: int, count: int) -> nn.Module:
        """Return the classifier of the training classes, which maps [B, features] to [B, count] scores."""
        return nn.Linear(features, count)

    def class_scores(self, images: Images) -> Tensor:
        """Return the scores of the training classes of a batch of features."""
        assert self.classes is not None, "a training has steps"
        scores: Tensor = self.classes(images.x)
        return scores

    def image_loss(self, images: Images) -> Tensor:
        """Return the mean cross-entropy of a batch of features."""
        return F.cross_entropy(self.class_scores(images), images.y)
