"""RFS (Tian, Wang, Krishnan, Tenenbaum & Isola 2020, "A good embedding is all you need?").

https://arxiv.org/abs/2003.11539; its code is https://github.com/WangYueFt/rfs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from metabench.api import AlgorithmConfig, Images, Setup, Support, Unfit, at_test
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.base_classes import OnBaseClasses
from metabench_plugins.algorithms.logistic import LinearLayer, fitted
from metabench_plugins.algorithms.views import OnViews


class RFSConfig(AlgorithmConfig):
    """Parameters of `RFS`, by default those of the authors' code.

    Attributes:
        views: distorted copies of each support image, on which the regression is fitted; 0 takes the image itself.
        inverse_penalty: C of the logistic regression.
        steps: steps in which it is fitted.
        distillation: share of the teacher in the loss, if there is one.
        temperature: temperature of student's and teacher's predictions in distillation.
    """

    # The authors' rate is .05; C is that of the logistic regression (Tian et al. 2020).
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "lr": Float(5e-3, 0.5, log=True),
        "weight_decay": Float(5e-5, 5e-3, log=True),
        "inverse_penalty": Float(0.01, 100, log=True),
    }

    optimiser: Literal["adam", "adamw", "sgd"] = "sgd"
    lr: PositiveFloat = 0.05
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["constant", "step", "cosine"] = "step"
    decay_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.6, 0.8)
    decay: float = Field(default=0.1, gt=0, lt=1)
    views: NonNegativeInt = 5
    inverse_penalty: float = at_test(1.0, gt=0)
    steps: int = at_test(100, ge=1)
    distillation: float = Field(default=0.5, ge=0, le=1)
    temperature: PositiveFloat = 4.0


class RFS(OnViews, OnBaseClasses):
    """Trains the network as a classifier of all training classes; then a logistic regression of normalised features.

    With a teacher, itself trained so, the student learns the teacher's predictions, too (born-again; section 3.3).

    Raises:
        Unfit: the teacher is no classifier of the same training classes.
    """

    Config = RFSConfig
    functional = True

    def __init__(self, config: RFSConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        if setup.teacher is not None:
            classes = getattr(getattr(setup.teacher, "classes", None), "out_features", None)
            if classes != setup.train_classes:
                raise Unfit(
                    f"its teacher has to be a classifier of the same {setup.train_classes} training classes, such as "
                    "rfs or classifier"
                )
            self.reads = "images"
        self._teacher: list[Any] = [setup.teacher]  # in a list, so that its weights are no part of this module

    def image_loss(self, images: Images) -> Tensor:
        """Return the mean cross-entropy; with a teacher, its mean with the divergence from the teacher."""
        (teacher,) = self._teacher
        embedded = images if self.reads == "features" else Images(self.backbone(images.x), images.y, images.classes)
        scores: Tensor = self.class_scores(embedded)
        loss = F.cross_entropy(scores, images.y)
        if teacher is None:
            return loss
        with torch.no_grad():
            taught = teacher.classes(teacher.backbone(images.x))
        share, temperature = self.config.distillation, self.config.temperature
        # The square keeps the size of the gradient, whatever the temperature (Hinton, Vinyals & Dean 2015).
        divergence = temperature**2 * F.kl_div(
            (scores / temperature).log_softmax(dim=1), (taught / temperature).softmax(dim=1), reduction="batchmean"
        )
        distilled: Tensor = (1 - share) * loss + share * divergence
        return distilled

    def adapt(self, support: Support) -> tuple[LinearLayer, Tensor]:
        """Return the regression of the features of the copies of the support set, and the support set."""
        copies, config = self.embedded_support(support), self.config
        x = F.normalize(copies.x, dim=1)
        labels = F.one_hot(copies.y, support.way).to(x.dtype)
        return fitted(x, labels, config.inverse_penalty, config.steps), support.x

    def answer(self, state: tuple[LinearLayer, Tensor], query: Tensor) -> Tensor:
        """Return the regression's [M, N] scores."""
        layer, support_x = state
        scores: Tensor = layer(F.normalize(self.embedded_query(support_x, query), dim=1))
        return scores
