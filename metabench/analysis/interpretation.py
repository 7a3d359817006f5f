"""What a method makes of one test episode, as the report shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Neighbour:
    """A support image near the query.

    Attributes:
        png: the image.
        name: name of its class.
        similarity: cosine of the angle between its features and the query's.
        weight: its share of the weights of all support images.
    """

    png: bytes
    name: str
    similarity: float
    weight: float


@dataclass(frozen=True)
class Interpretation:
    """One query of one test episode, and the features of all images of the episode.

    Attributes:
        method: label of the algorithm.
        task: dataset, way, shot and backbone.
        number: number of the episode.
        classes: [N] names of its classes.
        query: place of the query in `points`.
        query_png: the query.
        true: name of its class.
        predicted: name of the predicted class.
        probability: probability of the predicted class, at the temperature of the cell where it has one.
        nearest: the support images that are nearest to it, the nearest first.
        weights_are: a sentence that says what the weights are.
        points: [S + M] coordinates of support images and queries in the first two principal components.
        labels: [S + M] labels.
        is_support: [S + M] whether a point is a support image.
        variance: share of the variance of the features in each of the two components.
        saliency_png: the query with the pixels that move the predicted probability; None if it could not be made.
        saliency_note: how it was made, or why not.
    """

    method: str
    task: str
    number: int
    classes: Sequence[str]
    query: int
    query_png: bytes
    true: str
    predicted: str
    probability: float
    nearest: Sequence[Neighbour]
    weights_are: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[int]
    is_support: Sequence[bool]
    variance: tuple[float, float]
    saliency_png: bytes | None
    saliency_note: str
