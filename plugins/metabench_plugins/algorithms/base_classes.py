"""Training on all classes of the training split at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, Images, Setup


class OnBaseClasses(Algorithm):
    """An algorithm whose network learns by a linear classifier of the training classes and its cross-entropy.

    The classifier is of no use in a test, and is not built where nothing is trained.
    """

    trains_on = "images"
    reads = "features"
    any_way = True

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        self.classes = nn.Linear(setup.backbone.features, setup.train_classes) if setup.train_steps else None

    def image_loss(self, images: Images) -> Tensor:
        """Return the mean cross-entropy of a batch of features."""
        assert self.classes is not None, "a training has steps"
        return F.cross_entropy(self.classes(images.x), images.y)
