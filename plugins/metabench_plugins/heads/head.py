"""What all heads have in common."""

from __future__ import annotations

from metabench.api import Config, at_test
from metabench_plugins.algorithms.transformed import OnTransformedFeatures, Transform


class HeadConfig(Config):
    """Parameters of `Head`.

    Attributes:
        transform: features as they are (``"UN"``), divided by their length (``"L2N"``), or that after the mean feature
            of the training images is subtracted (``"CL2N"``).
    """

    transform: Transform = at_test("UN")


class Head(OnTransformedFeatures):
    """A classifier of features that trains nothing and sees one episode only."""

    Config = HeadConfig
    trains_on = "nothing"
    functional = True
    any_way = True
    draws = False
