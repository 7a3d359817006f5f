"""Show a query of a test episode as a method sees it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from metabench.analysis.interpretation import Interpretation, Neighbour
from metabench.analysis.stats import Floats
from metabench.api import Algorithm, Episodes, SourceSplit, Split, Support, embed_episode
from metabench.engine.asking import predict
from metabench.engine.pictures import pixels_of
from metabench.engine.streams import evaluation_stream
from metabench.errors import in_one_line
from metabench.machine.reproducible import derive_seed, seed_generators
from metabench.planning.cells import Cell

#: Number of support images beside the query.
_NEAREST = 6
#: Factor of the cosine similarity in the weights.
_SHARPNESS = 10.0
#: Steps of the integral of gradients.
_STEPS = 16
WEIGHTS_ARE = (
    f"Weights: softmax of {_SHARPNESS:g} times the cosine similarity of the backbone's features, over all support "
    "images; a method may weigh them otherwise, and what it adapts within the episode is not in these features."
)


def interpret(
    cell: Cell,
    algorithm: Algorithm,
    splits: Mapping[str, Split | SourceSplit],
    device: torch.device,
    number: int,
    temperature: float | None,
    method: str,
    task: str,
) -> Interpretation | None:
    """Return an episode as an algorithm sees it: its first misclassified query, or its first one.

    Args:
        cell: the cell.
        algorithm: the algorithm with its weights, prepared for the test.
        splits: the splits of its dataset.
        device: the device that it runs on.
        number: number of the test episode.
        temperature: the temperature of the cell; None without one.
        method: label of the method.
        task: dataset, way, shot and backbone, for people.

    Returns:
        The interpretation; None where the episodes have no images.
    """
    stream, split = evaluation_stream(cell, splits, device).images, splits["test"]
    if isinstance(split, SourceSplit) or len(stream.image_shape) == 1:
        return None
    episode = stream.batch(number, 1)
    scores = predict(algorithm, episode, cell.test.seed, number)[0].double() / (temperature or 1.0)
    probabilities, labels = scores.softmax(dim=1), episode.query_y[0]
    predicted = scores.argmax(dim=1)
    query = int((predicted != labels).int().argmax())
    names = [split.class_names[of_label] for of_label in stream.classes(number, 1)[0]]
    support_x, query_x = episode.support_x[0], episode.query_x[0]
    with torch.no_grad():
        parts = embed_episode(algorithm.backbone, support_x, query_x)
    support, queries = (part.double().cpu().numpy().reshape(len(part), -1) for part in parts)
    points, variance = principal_components(np.concatenate([support, queries]))
    similarity = _cosines(support, queries[query])
    weights = np.exp(_SHARPNESS * (similarity - similarity.max()))
    scale = _Scale.of(episode)
    saliency, note = _saliency(
        algorithm, episode, query, int(predicted[query]), derive_seed(cell.test.seed, "saliency")
    )
    support_y = episode.support_y[0].tolist()
    return Interpretation(
        method=method,
        task=task,
        number=number,
        classes=names,
        query=len(support) + query,
        query_png=scale.png(query_x[query]),
        true=names[int(labels[query])],
        predicted=names[int(predicted[query])],
        probability=float(probabilities[query, predicted[query]]),
        nearest=[
            Neighbour(
                scale.png(support_x[i]), names[support_y[i]], float(similarity[i]), float(weights[i] / weights.sum())
            )
            for i in np.argsort(-similarity, kind="stable")[:_NEAREST].tolist()
        ],
        weights_are=WEIGHTS_ARE,
        points=[(float(x), float(y)) for x, y in points],
        labels=[*support_y, *labels.tolist()],
        is_support=[True] * len(support) + [False] * len(queries),
        variance=variance,
        saliency_png=None if saliency is None else scale.png(query_x[query], saliency),
        saliency_note=note,
    )


def principal_components(features: Floats) -> tuple[Floats, tuple[float, float]]:
    """Return [n, 2] coordinates in the first two principal components, and the share of the variance in each.

    Args:
        features: [n, D] features.
    """
    centred = features - features.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(features), 2))
    kept = min(2, len(sizes))
    points[:, :kept] = left[:, :kept] * sizes[:kept]
    shares = sizes**2 / max(float((sizes**2).sum()), np.finfo(np.float64).tiny)
    first, second = [*shares[:2].tolist(), 0.0, 0.0][:2]
    return points, (first, second)


def _cosines(support: Floats, query: Floats) -> Floats:
    """Return the [S] cosines of the angles between features; 0 where one is zero."""
    lengths = np.linalg.norm(support, axis=1) * np.linalg.norm(query)
    cosines: Floats = np.divide(support @ query, lengths, out=np.zeros(len(support)), where=lengths > 0)
    return cosines


def _saliency(
    algorithm: Algorithm, episode: Episodes, query: int, label: int, seed: int
) -> tuple[npt.NDArray[np.float64] | None, str]:
    """Return [H, W] integrated gradients of a query's log-probability, and how they were made or why not."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        return None, "No saliency map: it needs captum, pip install 'metabench[interpret]'."
    images = episode.query_x[0]
    try:
        answer = _Answer(algorithm, episode, query, label, seed)
        attributed = IntegratedGradients(answer).attribute(
            images[query : query + 1].clone().requires_grad_(), n_steps=_STEPS, internal_batch_size=_STEPS
        )
        salient = attributed.detach()[0].abs().sum(dim=0).double().cpu().numpy()
    except Exception as error:  # a plugin may raise anything, e.g. where its answer has no gradient
        return None, f"No saliency map: the answer has no gradient by the query ({in_one_line(error)})."
    if not np.isfinite(salient).all() or not salient.any():
        return None, "No saliency map: the answer does not change with the query, or its gradient is not finite."
    return salient, (
        f"Red pixels move the log-probability of the predicted class most: integrated gradients over {_STEPS} steps "
        "from the mean image (Sundararajan et al. 2017), summed over the channels, with the support set as it is."
    )


@dataclass(frozen=True)
class _Answer:
    """The log-probability of a label, as a function of one query of an episode."""

    algorithm: Algorithm
    episode: Episodes
    query: int
    label: int
    seed: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return the [n] log-probabilities of [n, C, H, W] images in the place of the query."""
        return torch.stack([self._of(image) for image in x])

    def _of(self, image: Tensor) -> Tensor:
        support, queries = self.episode.support_x[0], self.episode.query_x[0]
        queries = torch.cat([queries[: self.query], image[None], queries[self.query + 1 :]])
        if self.algorithm.reads == "features":
            support, queries = embed_episode(self.algorithm.backbone, support, queries)
        seed_generators(self.seed)
        with torch.no_grad():
            state = self.algorithm.adapt(Support(support.detach(), self.episode.support_y[0], self.episode.task))
        scores = self.algorithm.answer(state, queries)
        return scores[self.query].log_softmax(dim=0)[self.label]


@dataclass(frozen=True)
class _Scale:
    """The range of the numbers of an episode's images."""

    low: float
    high: float

    @classmethod
    def of(cls, episode: Episodes) -> _Scale:
        """Return the range of all images of an episode."""
        parts = (episode.support_x, episode.query_x)
        return cls(min(float(part.min()) for part in parts), max(float(part.max()) for part in parts))

    def png(self, image: Tensor, salient: npt.NDArray[np.float64] | None = None) -> bytes:
        """Return a [C, H, W] image as PNG; in grey, with salient pixels in red."""
        colours = pixels_of(image.detach().cpu().numpy(), self.low, self.high)
        if salient is not None:
            # The strongest percent is as red as can be: one extreme pixel would hide all others.
            share = np.clip(salient / max(float(np.quantile(salient, 0.99)), 1e-12), 0, 1)[..., None]
            grey = colours.mean(axis=2, keepdims=True) * 0.5 + 110
            colours = (grey * (1 - share) + np.array([200, 20, 30]) * share).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(colours)).save(file, "PNG", optimize=True)
        return file.getvalue()
