"""Tiny algorithms, backbone and dataset that run in milliseconds.

`PLUGIN` announces them as a plugin would. `Watching` records all progress.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metabench import api
from metabench.executors.job import TrainingJob
from metabench.planning.cells import Cell
from metabench.records.record import Record
from metabench.specs import AlgorithmSpec, BackboneSpec, DatasetSpec, hookimpl

CPU = torch.device("cpu")

SUITE = """\
name: tiny
datasets: {{blots: {{}}}}
backbones: {{pixels: {{}}}}
ways: [3]
shots: [2]
queries: 4
train: {{steps: 8, meta_batch: 2, validate_every: 2, validation_episodes: 5}}
eval: {{episodes: 12, batch: 5}}
algorithms: {{{algorithms}}}
"""

#: A suite of built-in algorithms at their smallest, on a network that they can train.
REAL = (
    SUITE.replace("pixels: {{}}", "conv4: {{params: {{channels: 4}}}}")
    .replace("steps: 8", "steps: 7")
    .replace("validate_every: 2", "validate_every: 3")
)
PARAMS = {
    "reptile": "inner_steps: 2, test_inner_steps: 2",
    "siamese": "pairs: 16",
    "protonet": "decay_every: 3",
}


class Blots(api.Dataset):
    """18 classes of 8 images, six classes per split.

    Images are 16×16; their first pixel is 0 in train, 120 in val and 240 in test.
    """

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> api.Pack:
        rng = np.random.Generator(np.random.PCG64(0))
        classes = rng.integers(0, 200, (18, 1, 1, 16, 16))
        images = (classes + rng.integers(0, 56, (18, 8, 1, 16, 16))).reshape(144, 1, 16, 16)
        images[:, 0, 0, 0] = np.repeat([0, 120, 240], 48)
        return api.Pack(images.astype(np.uint8), np.arange(19) * 8, tuple(f"blot {i}" for i in range(18)))

    def split(self, pack: api.Pack) -> Mapping[str, api.Split]:
        images, names = torch.tensor(pack.images), pack.class_names
        return {
            name: api.Split(images[48 * i : 48 * i + 48], torch.arange(7) * 8, names[6 * i : 6 * i + 6])
            for i, name in enumerate(("train", "val", "test"))
        }


class Smears(Blots):
    """Other images of the same sizes, which are another dataset."""

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> api.Pack:
        pack = super().pack(files, progress)
        return replace(pack, images=np.ascontiguousarray(pack.images[:, :, :, ::-1]))


class Large(Blots):
    """Images of twice the size."""

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> api.Pack:
        pack = super().pack(files, progress)
        return replace(pack, images=pack.images.repeat(2, axis=2).repeat(2, axis=3))


def is_test(x: Tensor) -> bool:
    return float(x[..., 0, 0].mean()) > 0.8


class Pixels(api.Backbone):
    """Returns the pixels as features."""

    def __init__(self, config: Any, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        self.features = int(np.prod(image_shape))

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return x.flatten(1)


class Centroid(api.Algorithm):
    """Nearest class mean; an outer update only counts its step."""

    def __init__(self, config: Any, setup: api.Setup) -> None:
        super().__init__(config, setup)
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def train_step(self, episodes: api.Episodes) -> api.Metrics:
        self.steps += 1
        return {"loss": self.loss(int(self.steps))}

    def training_state(self) -> dict[str, Any]:
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        pass

    def loss(self, step: int) -> Tensor:
        return torch.tensor(1.0 / step)

    def adapt(self, support: api.Support) -> Any:
        x = support.x.flatten(1)
        return torch.stack([x[support.y == label].mean(0) for label in range(support.way)])

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return -(query.flatten(1).unsqueeze(1) - state).square().sum(-1) * self.weight


class Fading(Centroid):
    """Right until step 4 only; on test images, later only."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        right = (int(self.steps) <= 4) != is_test(query)
        return super().answer(state, query) * (1 if right else -1)


class Shotwise(Centroid):
    """Right on 1-shot episodes until step 4, on others later."""

    def adapt(self, support: api.Support) -> Any:
        right = (int(self.steps) <= 4) == (len(support.y) == support.way)
        return super().adapt(support), 1 if right else -1

    def answer(self, state: Any, query: Tensor) -> Tensor:
        means, sign = state
        return super().answer(means, query) * sign


class Shortsighted(Centroid):
    """Raises an error on 1-shot episodes."""

    def adapt(self, support: api.Support) -> Any:
        if len(support.y) == support.way:
            raise ValueError("a variance of one image")
        return super().adapt(support)


class Diverging(Centroid):
    """Has a loss of nan from step 12 on."""

    def loss(self, step: int) -> Tensor:
        return torch.tensor(float("nan") if step >= 12 else 1.0)


class Parrot(Centroid):
    """Answers what its teacher answers."""

    def __init__(self, config: Any, setup: api.Setup) -> None:
        super().__init__(config, setup)
        self.teacher = [setup.teacher]  # in a list, so that its weights are no part of this module

    def adapt(self, support: api.Support) -> Any:
        (teacher,) = self.teacher
        assert teacher is not None, "the suite names a teacher"
        features = teacher.backbone(support.x)
        return teacher.adapt(replace(support, x=features))

    def answer(self, state: Any, query: Tensor) -> Tensor:
        (teacher,) = self.teacher
        assert teacher is not None, "the suite names a teacher"
        return teacher.answer(state, teacher.backbone(query))


class Talkative(Centroid):
    """Has a state that is no tensor."""

    def get_extra_state(self) -> dict[str, Any]:
        return {"words": "some"}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        pass


class Blank(Centroid):
    """Answers scores of nan."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return super().answer(state, query) * torch.tensor(float("nan"))


class Greedy(Centroid):
    """Allocates a tensor larger than any memory."""

    def loss(self, step: int) -> Tensor:
        return torch.empty(2**60, dtype=torch.uint8).sum()


class GreedyPython(Centroid):
    """Raises Python's MemoryError."""

    def loss(self, step: int) -> Tensor:
        raise MemoryError


class GreedyGpu(Centroid):
    """Raises torch's out-of-memory error of a GPU."""

    def loss(self, step: int) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")


class Choosy(Centroid):
    """Does not fit episodes of three classes."""

    def __init__(self, config: Any, setup: api.Setup) -> None:
        super().__init__(config, setup)
        if setup.way == 3:
            raise api.Unfit("three classes are a crowd: change ways")


class Contradictory(Centroid):
    """Refuses its parameters."""

    def __init__(self, config: Any, setup: api.Setup) -> None:
        raise ValueError("parameters that contradict each other")


class Faulty(Centroid):
    """Raises a KeyError in the first outer update."""

    def loss(self, step: int) -> Tensor:
        raise KeyError("a bug of the plugin")


class Relative(Centroid):
    """Subtracts the mean score of all queries: transductive."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        scores = super().answer(state, query)
        return scores - scores.mean(dim=0, keepdim=True)


class Versatile(Relative):
    """Is transductive, and serves any way."""

    any_way = True


class Sociable(Relative):
    """Raises an error on a single query."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        if len(query) == 1:
            raise ValueError("I am not used to be alone")
        return super().answer(state, query)


class Gregarious(Centroid):
    """Subtracts the mean score of the episode before."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        scores = super().answer(state, query)
        before, self.last = vars(self).get("last", scores), scores
        return scores - 3 * before.mean(dim=0, keepdim=True)


class Remembering(Centroid):
    """Answers known queries as it did before."""

    def __init__(self, config: Any, setup: api.Setup) -> None:
        super().__init__(config, setup)
        self.answers: dict[bytes, Any] = {}

    def answer(self, state: Any, query: Tensor) -> Tensor:
        scores = super().answer(state, query).tolist()
        return torch.tensor(self.answers.setdefault(query.numpy().tobytes(), scores))


class Positional(Centroid):
    """Takes the classes from the order of the support images."""

    def adapt(self, support: api.Support) -> Any:
        in_order = torch.arange(support.way).repeat_interleave(len(support.y) // support.way)
        return super().adapt(replace(support, y=in_order))


class Guessing(Centroid):
    """Draws its scores from torch's generator."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return torch.rand(len(query), len(state))


class Backwards(Centroid):
    """Returns distances as scores."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return -super().answer(state, query)


class Labelling(Centroid):
    """Returns labels."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return super().answer(state, query).argmax(-1)


class Padded(Centroid):
    """Returns scores of four dimensions."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return super().answer(state, query)[None, None]


class Listing(Centroid):
    """Returns a list."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return super().answer(state, query).tolist()  # type: ignore[no-any-return]


class Infinite(Centroid):
    """Gives impossible classes a score of -inf."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        scores = super().answer(state, query)
        return scores.masked_fill(scores < scores.max(dim=-1, keepdim=True).values, float("-inf"))


class Unlucky(Centroid):
    """Gives the nearest class a score of -inf."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        scores = super().answer(state, query)
        return scores.masked_fill(scores == scores.max(dim=-1, keepdim=True).values, float("-inf"))


class Constant(Centroid):
    """Answers the same score for all classes."""

    def answer(self, state: Any, query: Tensor) -> Tensor:
        return torch.zeros(len(query), len(state))


TINY = [
    Centroid,
    Fading,
    Shotwise,
    Shortsighted,
    Diverging,
    Blank,
    Greedy,
    GreedyPython,
    GreedyGpu,
    Choosy,
    Contradictory,
    Faulty,
    Relative,
    Versatile,
    Sociable,
    Gregarious,
    Remembering,
    Positional,
    Guessing,
    Backwards,
    Labelling,
    Padded,
    Listing,
    Infinite,
    Unlucky,
    Constant,
    Parrot,
    Talkative,
]


class Plugin:
    """Announces all classes of this module."""

    @hookimpl
    def metabench_algorithms(self) -> list[AlgorithmSpec]:
        return [AlgorithmSpec(cls.__name__.lower(), f"{__name__}:{cls.__name__}", "") for cls in TINY]

    @hookimpl
    def metabench_backbones(self) -> list[BackboneSpec]:
        return [BackboneSpec("pixels", f"{__name__}:Pixels", "")]

    @hookimpl
    def metabench_datasets(self) -> list[DatasetSpec]:
        return [DatasetSpec(cls.__name__.lower(), f"{__name__}:{cls.__name__}", "") for cls in (Blots, Smears, Large)]


PLUGIN = Plugin()


class Watching:
    """Records all progress; stops after `stop_after` steps of phase `stop_in`."""

    def __init__(self, stop_in: str = "", stop_after: int = 0) -> None:
        self.stop = (stop_in, stop_after)
        self.phases: list[tuple[str, int, int]] = []
        self.started: list[str] = []
        self.done: list[tuple[str, bool]] = []
        self._reached = False

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.phases.append((name, total, done))

    def advance(self, done: int, note: str = "") -> None:
        name, _, _ = self.phases[-1]
        self._reached = self._reached or (name == self.stop[0] and done >= self.stop[1])

    def should_stop(self) -> bool:
        return self._reached

    def cell_started(self, cell: Cell, number: int, of: int) -> Watching:
        self.started.append(cell.algorithm.label)
        return self

    def job_started(self, job: TrainingJob) -> Watching:
        self.started.append(f"training of {job.training.algorithm.label}")
        return self

    def job_retried(self, job: TrainingJob, reason: str) -> None:
        self.done.append((f"{job.title}: {reason}", False))

    def job_done(self, job: TrainingJob, problem: str) -> None:
        self.done.append((f"training of {job.training.algorithm.label}", bool(problem)))

    def cell_done(self, record: Record, kept: bool) -> None:
        self.done.append((record.algorithm, kept))
