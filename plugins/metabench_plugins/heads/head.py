"""What all heads have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from metabench.api import Config, at_test
from metabench.specs import OneOf, SearchRange
from metabench_plugins.algorithms.transformed import OnTransformedFeatures, Transform


class HeadConfig(Config):
    """Parameters of `Head`.

    Attributes:
        transform: features as they are (``"UN"``), divided by their length (``"L2N"``), or that after the mean feature
            of the training images is subtracted (``"CL2N"``).
    """

    # SimpleShot (Wang et al. 2019) compares the transforms.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        "transform": OneOf(["UN", "L2N", "CL2N"]),
    }

    transform: Transform = at_test("UN")


class Head(OnTransformedFeatures):
    """A classifier of features that trains nothing and sees one episode only."""

    Config = HeadConfig
    trains_on = "nothing"
    functional = True
    any_way = True
    draws = False
