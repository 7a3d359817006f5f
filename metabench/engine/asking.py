"""Let an algorithm adapt to episodes, and ask it queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metabench.api import Algorithm, Classification, Episodes, Support, Task, embed_episode
from metabench.api.batching import Batching
from metabench.engine.batching import InOrder
from metabench.engine.features import images_at_once
from metabench.errors import CellFailed
from metabench.machine.reproducible import derive_seed, seed_generators


def predict(algorithm: Algorithm, episodes: Episodes, seed: int, first: int) -> Tensor:
    """Return the [B, M, N] scores of all queries, each episode asked at once; [B, M, outputs] of a regression.

    Args:
        algorithm: the algorithm.
        episodes: B episodes.
        seed: seed of the algorithm's random draws, with the number of the episode.
        first: number of the first episode in its stream.

    Raises:
        CellFailed: the scores have another shape or type.
    """
    (scores,) = ask(algorithm, episodes, [episodes.query_x], seed, first)
    return scores


def predict_alone(algorithm: Algorithm, episodes: Episodes, seed: int, first: int) -> Tensor:
    """Return the [B, M, N] scores of all queries, asked one query of one episode at a time.

    Support set and query are embedded in a pass of their own, for an algorithm that reads features: a backbone may call
    itself `per_image` and mix images. Arguments and errors are as in `predict`.
    """
    queries = torch.split(episodes.query_x, 1, dim=1)
    return torch.cat(ask(algorithm, episodes, queries, seed, first, together=True), dim=1)


@torch.no_grad()
def ask(
    algorithm: Algorithm,
    episodes: Episodes,
    questions: Sequence[Tensor],
    seed: int,
    first: int,
    together: bool = False,
) -> tuple[Tensor, ...]:
    """Let the algorithm adapt once to each episode, and ask it questions one after the other.

    An algorithm that reads features adapts anew for each question, if the backbone has to embed support set and queries
    together.

    Args:
        algorithm: the algorithm.
        episodes: B episodes, of which the support sets are used.
        questions: [B, m, C, H, W] queries each; [B, m, D] features of embedded episodes.
        seed: seed of the algorithm's random draws, with the number of the episode.
        first: number of the first episode in its stream.
        together: embed support set and queries of each episode together, also if the backbone is `per_image`.

    Returns:
        [B, m, N] scores of each question.

    Raises:
        CellFailed: the scores have another shape or type.
    """
    algorithm.eval()
    task = episodes.task
    support, asked = episodes.support_x, list(questions)
    reads_features = algorithm.reads == "features" and not episodes.embedded
    together = reads_features and (together or not algorithm.backbone.per_image)
    if reads_features and not together:
        support, *asked = _embedded(algorithm, [support, *asked])

    batching = _seeded(algorithm.batching, seed, first, len(episodes))
    in_order = isinstance(batching, InOrder)

    def work(learner: Algorithm, x: Tensor, y: Tensor, *queries: Tensor) -> tuple[Tensor, ...]:
        draws = _Draws(torch.initial_seed()) if in_order else None
        if together:
            return tuple(_answer_together(learner, x, y, query, task, draws) for query in queries)
        if draws:
            draws.begin("adapt")
        state = learner.adapt(Support(x, y, task))
        return tuple(_answer(learner, state, query, task, draws) for query in queries)

    return tuple(scores.detach() for scores in batching.map(work, algorithm, support, episodes.support_y, *asked))


class Adapted:
    """Learners that have adapted to B episodes, asked in lockstep (`metabench.api.Answers`).

    They adapt once, one after the other, with the random draws that `ask` gives them.

    Args:
        algorithm: the algorithm.
        episodes: B episodes, of which the support sets are used.
        seed: seed of the algorithm's random draws, with the number of the episode.
        first: number of the first episode in its stream.
    """

    @torch.no_grad()
    def __init__(self, algorithm: Algorithm, episodes: Episodes, seed: int, first: int) -> None:
        algorithm.eval()
        self._algorithm, self._task, self._device = algorithm, episodes.task, episodes.support_x.device
        self._reads_features = algorithm.reads == "features" and not episodes.embedded
        self._together = self._reads_features and not algorithm.backbone.per_image
        self._learners = [
            self._adapted(Support(x, y, self._task), derive_seed(seed, f"predict {first + place}"))
            for place, (x, y) in enumerate(zip(episodes.support_x, episodes.support_y, strict=True))
        ]

    @torch.no_grad()
    def __call__(self, queries: Tensor) -> Tensor:
        """Return the [B, m, outputs] answers to [B, m, *input_shape] queries, on the CPU.

        Raises:
            CellFailed: an answer has another shape or type, or is not finite.
        """
        asked = zip(self._learners, queries.to(self._device), strict=True)
        answers = torch.stack([self._answered(*learner, query) for learner, query in asked]).cpu()
        if not bool(answers.isfinite().all()):
            raise CellFailed(
                "an answer in a rollout is not finite: the trained weights, or the adaptation, diverged. Lower the "
                "learning rates, or clip the gradient"
            )
        return answers

    def _adapted(self, support: Support, seed: int) -> tuple[Any, _Draws]:
        """Return the state of a learner, or its support set if that is embedded with each query; and its draws."""
        seed_generators(seed)
        draws = _Draws(torch.initial_seed())
        if self._together:
            return support, draws
        draws.begin("adapt")
        x = self._algorithm.backbone(support.x) if self._reads_features else support.x
        return self._algorithm.adapt(replace(support, x=x)), draws

    def _answered(self, state: Any, draws: _Draws, query: Tensor) -> Tensor:
        if self._together:
            return _answer_together(self._algorithm, state.x, state.y, query, self._task, draws)
        query = self._algorithm.backbone(query) if self._reads_features else query
        return _answer(self._algorithm, state, query, self._task, draws)


def _seeded(batching: Batching, seed: int, first: int, count: int) -> Batching:
    """Return the batching; in order, with a seed for each episode that depends on its number only."""
    if not isinstance(batching, InOrder):
        return batching
    return InOrder([derive_seed(seed, f"predict {number}") for number in range(first, first + count)])


@dataclass(frozen=True)
class _Draws:
    """The random numbers of one episode: one sequence to adapt, another for each answer.

    Attributes:
        seed: seed of the episode.
    """

    seed: int

    def begin(self, part: str) -> None:
        """Begin the sequence of ``"adapt"`` or ``"answer"``."""
        seed_generators(derive_seed(self.seed, part))


def _answer_together(
    learner: Algorithm, x: Tensor, y: Tensor, query: Tensor, task: Task, draws: _Draws | None
) -> Tensor:
    """Embed support images and queries in one pass, adapt and answer."""
    if draws:
        draws.begin("adapt")
    support, query = embed_episode(learner.backbone, x, query)
    return _answer(learner, learner.adapt(Support(support, y, task)), query, task, draws)


def _answer(learner: Algorithm, state: Any, query: Tensor, task: Task, draws: _Draws | None) -> Tensor:
    """Return the checked answers; each question has the same random numbers.

    Raises:
        CellFailed: the answers have another shape or type.
    """
    if draws:
        draws.begin("answer")
    scores = learner.answer(state, query)
    expected = (len(query), task.outputs)
    if isinstance(scores, Tensor) and scores.shape == expected and scores.is_floating_point():
        return scores
    returned = f"{tuple(scores.shape)} of {scores.dtype}" if isinstance(scores, Tensor) else type(scores).__name__
    if not isinstance(task, Classification):
        raise CellFailed(f"answer must return floating-point [queries, outputs] = {expected}; it returned {returned}")
    raise CellFailed(
        f"answer must return floating-point scores [queries, classes] = {expected}, the largest score of a query for "
        f"its predicted class, not labels or distances; it returned {returned}"
    )


def _embedded(algorithm: Algorithm, parts: Sequence[Tensor]) -> list[Tensor]:
    """Return the [B, m, D] features of [B, m, C, H, W] images, in one pass over several episodes."""
    images = torch.cat(list(parts), dim=1)
    at_once = len(images)
    if images.device.type == "cpu":
        at_once = max(1, images_at_once(tuple(images.shape[2:]), images.device) // images.shape[1])
    features = torch.cat([algorithm.backbone(part.flatten(0, 1)) for part in torch.split(images, at_once)])
    features = features.reshape(images.shape[:2] + features.shape[1:])
    return list(torch.split(features, [part.shape[1] for part in parts], dim=1))
