"""What a suite says: its sections as validated, frozen models; `suite_file` reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    WrapSerializer,
    field_validator,
    model_validator,
)

from metabench.data.class_choice import ClassSampling
from metabench.planning.distortions import Distortion
from metabench.planning.exclusions import Exclusion
from metabench.planning.limits import Numbers
from metabench.planning.time_limits import Limits


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Entry(_Section):
    """A dataset or backbone of a suite.

    Its key in the suite is its label.

    Attributes:
        use: the plugin's name for it, or ``FILE.py:CLASS``; None means the label.
        params: parameters for its `Config`.
    """

    use: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)


class DatasetEntry(Entry):
    """A dataset of a suite.

    Attributes:
        test_on: labels of the datasets on which the algorithms that train on this one are tested; None means this one.
            Nothing is trained on a dataset with an empty list.
        licence: licence of the data, where the dataset's plugin cannot know it (one's own images).
    """

    test_on: list[str] | None = None
    licence: str = ""


#: Number of queries of a class; ``shot`` has as many as there are support images of each class.
Queries = PositiveInt | Literal["shot"]


class TrainOverrides(_Section):
    """Training settings of one algorithm, which override `Train`."""

    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None
    meta_batch: PositiveInt | None = None
    batch: PositiveInt | None = None
    way: int | None = Field(default=None, ge=2)
    shot: PositiveInt | None = None
    queries: Queries | None = None
    sampling: ClassSampling | None = None
    classes: Numbers | None = None
    images_per_class: Numbers | None = None
    augment: list[Distortion] | None = None
    validate_every: PositiveInt | None = None
    validation_episodes: PositiveInt | None = None
    patience: PositiveInt | None = None
    seconds: PositiveFloat | None = None
    time_limit: PositiveFloat | None = None

    @model_validator(mode="before")
    @classmethod
    def _given(cls, data: Any) -> Any:
        """Drop null settings, which earlier versions wrote into the suite of a run: giving one has a meaning."""
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


#: The word of a suite for no training.
_NO_TRAINING = "none"


def _training(value: Any) -> Any:
    """Read the word for no training; YAML's empty value is probably an omission."""
    if value is None or (isinstance(value, str) and value != _NO_TRAINING):
        raise ValueError("training settings are needed, or the word none to train nothing")
    return None if value == _NO_TRAINING else value


_Settings = TypeVar("_Settings")


def _written(value: Any, dump: Callable[[Any], dict[str, Any]]) -> Any:
    """Return training settings as a suite writes them, without those that are not given: giving one has a meaning."""
    return _NO_TRAINING if value is None else {name: part for name, part in dump(value).items() if part is not None}


#: Training settings; None, written as ``none`` in a suite, trains nothing.
OrNone = Annotated[
    _Settings | None,
    BeforeValidator(_training),
    WrapSerializer(_written),
]


#: Number format of a backbone's arithmetic; see `metabench.engine.precision`.
Precision = Literal["float32", "tf32", "bf16"]


class Tuned(_Section):
    """How the parameters of an algorithm were found; ``metabench tune`` writes it, and results do not depend on it.

    Attributes:
        trials: number of trials on validation, pruned and failed ones included; 0 where there was nothing to search.
        pruned: number of trials that ended early, because others were better at the same step.
        failed: number of trials without a result.
    """

    trials: int = Field(ge=0)
    pruned: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)


class TestOverrides(_Section):
    """Test settings of one algorithm, which override the suite's: it is tested on other episodes than the rest.

    Attributes:
        queries: query images of each class.
        sampling: rule by which an episode draws its classes.
    """

    queries: Queries | None = None
    sampling: ClassSampling | None = None


class AlgorithmEntry(Entry):
    """An algorithm of a suite.

    Attributes:
        precision: overrides the suite's precision; None keeps it.
        backbone: overrides parameters of the backbone, e.g. ``{"norm": "batch"}``.
        train: overrides training settings; None trains nothing.
        test: overrides the shape of the test episodes, and so of the validation episodes.
        weights: label of the algorithm whose trained weights are tested, or a file of weights; nothing is trained.
        init: label of the algorithm whose weights the training starts from, or a file of weights.
        teacher: label of the algorithm that the training learns from.
        tuned: how its parameters were found; None where nobody says.
    """

    precision: Precision | None = None
    backbone: dict[str, Any] = Field(default_factory=dict)
    train: OrNone[TrainOverrides] = TrainOverrides()
    test: TestOverrides = TestOverrides()
    weights: str | None = Field(default=None, min_length=1)
    init: str | None = Field(default=None, min_length=1)
    teacher: str | None = Field(default=None, min_length=1)
    tuned: Tuned | None = None

    @model_validator(mode="after")
    def _trained_once(self) -> AlgorithmEntry:
        if self.weights is not None:
            trained = self.train is not None and self.train.model_fields_set
            given = [name for name in ("init", "teacher", "backbone", "precision") if getattr(self, name)]
            for name in ["train", *given] if trained else given:
                raise ValueError(f"with 'weights', nothing is trained: remove '{name}'")
        return self


class Train(_Section):
    """Training settings of all algorithms; an algorithm may override them.

    Attributes:
        steps: number of outer updates.
        epochs: number of passes over the training images, of algorithms that train on images; goes before `steps`.
        meta_batch: episodes per outer update, of algorithms that train on episodes.
        batch: images per outer update, of algorithms that train on images.
        way: classes of a training episode; None means as in the test.
        shot: support images of each class of a training episode; None means as in the test.
        queries: query images of each class of a training episode; None means as in the test.
        sampling: rule by which a training episode draws its classes (`metabench.data.class_choice`); None means as in
            the test, of a test of one shape.
        classes: number of training classes, which the training seed draws; None means all. A list makes cells of each.
        images_per_class: largest number of images of a training class, in the same way.
        augment: distortions of training images, in the order in which they are applied.
        validate_every: steps between validations; the test uses the weights with the best validation accuracy.
        validation_episodes: episodes per validation.
        validation_seed: seed of the validation episodes.
        validate_on: whether validation episodes are of the dataset of the training or of the test, where they differ.
        patience: number of validations without a better accuracy after which the training ends; None trains all steps.
        seconds: seconds of training after which it ends, before `steps`; the result then depends on the machine.
        time_limit: most seconds of a training; a longer one fails its cells. None sets no limit.
    """

    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None
    meta_batch: PositiveInt = 1
    batch: PositiveInt = 64
    way: int | None = Field(default=None, ge=2)
    shot: PositiveInt | None = None
    queries: Queries | None = None
    sampling: ClassSampling | None = None
    classes: Numbers | None = None
    images_per_class: Numbers | None = None
    augment: list[Distortion] = Field(default_factory=list)
    validate_every: PositiveInt = 500
    validation_episodes: PositiveInt = 100
    validation_seed: int = Field(default=0, ge=0)
    validate_on: Literal["train", "test"] = "train"
    patience: PositiveInt | None = None
    seconds: PositiveFloat | None = None
    time_limit: PositiveFloat | None = None

    @model_validator(mode="after")
    def _long(self) -> Train:
        if self.steps is None and self.epochs is None:
            raise ValueError("the key 'steps' is missing (or 'epochs', for algorithms that train on images)")
        return self


class Until(_Section):
    """When a test with a growing number of episodes ends.

    Attributes:
        ci95: half the 95 % interval over episodes that is narrow enough, as a fraction.
        at_most: largest number of test episodes.
    """

    ci95: float = Field(gt=0, lt=1)
    at_most: PositiveInt


#: The corruptions of queries (`metabench.engine.corruptions`).
CorruptionName = Literal["gaussian_noise", "impulse_noise", "gaussian_blur", "contrast", "brightness"]


class Evaluation(_Section):
    """Test settings of all algorithms.

    Attributes:
        episodes: number of test episodes.
        until: tests further episodes, as many again each time, until the interval is narrow; None tests `episodes`.
        inductive_episodes: test episodes that a transductive method predicts again, each query on its own; capped at
            `episodes`.
        batch: most episodes predicted at once; changes results by rounding only. None chooses by device.
        seed: seed of the test episodes, shared by all training seeds.
        query_balance: whether every class of an episode has as many queries, or shares that the episode draws from a
            Dirichlet distribution (Veilleux et al. 2021, section 5.1), in validation, too.
        dirichlet_alpha: parameter α of that distribution.
        sampling: ``meta-dataset`` draws way, shots and queries of each test episode (`metabench.data.meta_dataset`);
            those of the suite are then of validation, and by default of training. ``one-of-a-group`` and
            ``one-family`` draw the classes of an episode (`metabench.data.class_choice`), of validation and by default
            of training, too.
        episodes_file: file of the test episodes (`metabench.data.episodes_files`), relative to the suite's; None draws
            them.
        time_limit: most seconds of a test; a longer one fails its cell. None sets no limit.
        keep_outputs: number of first test episodes whose outputs are kept, so that `metabench score` can compute
            further metrics; 0 keeps none.
        strangers: number of classes outside an episode of which it is asked as many queries as of its own: how well the
            largest probability tells them apart is a metric (AUROC). 0 asks none.
        corruptions: corruptions under which the queries are asked again; each is a metric.
        severity: severity of the corruptions, 1 to 5.
    """

    episodes: PositiveInt = Field(default=1000, ge=2)
    until: Until | None = None
    inductive_episodes: PositiveInt = Field(default=200, ge=2)
    batch: PositiveInt | None = None
    seed: int = Field(default=0, ge=0)
    query_balance: Literal["equal", "dirichlet"] = "equal"
    dirichlet_alpha: PositiveFloat = 2.0
    sampling: Literal["meta-dataset"] | ClassSampling | None = None
    episodes_file: str | None = Field(default=None, min_length=1)
    time_limit: PositiveFloat | None = None
    keep_outputs: int = Field(default=1000, ge=0)
    strangers: int = Field(default=0, ge=0)
    corruptions: list[CorruptionName] = []
    severity: int = Field(default=5, ge=1, le=5)

    @field_validator("corruptions")
    @classmethod
    def _corrupts_once(cls, names: list[CorruptionName]) -> list[CorruptionName]:
        if len(set(names)) < len(names):
            raise ValueError("a corruption is given twice")
        return names

    @model_validator(mode="after")
    def _grows(self) -> Evaluation:
        if self.until and self.until.at_most < self.episodes:
            raise ValueError(f"until.at_most ({self.until.at_most}) is less than episodes ({self.episodes})")
        if self.episodes_file is not None and self.query_balance != "equal":
            raise ValueError("the file of episodes says how many queries a class has: remove query_balance")
        if self.sampling == "meta-dataset" and (self.episodes_file is not None or self.query_balance != "equal"):
            raise ValueError("sampling draws the sizes of episodes: remove episodes_file and query_balance")
        if self.sampling is not None and self.episodes_file is not None:
            raise ValueError("the file of episodes says which classes they have: remove sampling")
        if self.sampling == "meta-dataset" or self.episodes_file is not None:
            for name in ("strangers", "corruptions"):
                if getattr(self, name):
                    raise ValueError(f"{name} are of drawn episodes of one shape: remove {name}")
        if self.sampling is not None and self.strangers:
            raise ValueError("strangers are drawn from all other classes: remove strangers or sampling")
        return self


class Gate(_Section):
    """Limits beyond which `metabench compare` fails a run.

    Attributes:
        tolerance: largest accepted loss of the metric that ranks, in the unit of its column (accuracy: points).
        tolerances: largest accepted loss of further metrics by name, each in the unit of its column.
        slowdown: largest accepted factor by which throughput and latency get worse; None sets no limit.
        memory_growth: largest accepted factor by which peak memory grows; None sets no limit.
    """

    tolerance: float = Field(default=0.5, ge=0, le=100)
    tolerances: dict[str, Annotated[float, Field(ge=0)]] = {}
    slowdown: float | None = Field(default=None, ge=1, le=100)
    memory_growth: float | None = Field(default=None, ge=1, le=100)

    def __str__(self) -> str:
        """Return the limits as text for people, where accuracy ranks."""
        return self.text("points")

    def text(self, unit: str) -> str:
        """Return the limits as text for people.

        Args:
            unit: the unit of `tolerance`.
        """
        factors = {"slowdown": self.slowdown, "memory growth": self.memory_growth}
        shown = [f"{name} {'without limit' if limit is None else f'×{limit:g}'}" for name, limit in factors.items()]
        further = [f"{name} {limit:g}" for name, limit in self.tolerances.items()]
        return ", ".join([f"tolerance {self.tolerance:g} {unit}", *further, *shown])


#: Names of suites and profiles are also names of directories.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"

#: The leaderboard shows labels: at most 160 characters, without control characters.
Label = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", max_length=160)]


class Suite(_Section):
    """All settings of a benchmark.

    Its cells are all combinations of algorithm × dataset × backbone × way × shot × seed, except the cells that match a
    pattern of `exclude`; a dataset with `test_on` makes cells on each of those. A regression has no classes, and so no
    way: a suite without classification has no `ways`. A new `version` has other cells under the same name;
    `superseded_by` names the suite, or its version, that takes its place. `limits` end trainings and tests that take
    too long, wherever they run.
    """

    name: str = Field(pattern=NAME, max_length=80)
    version: PositiveInt | None = None
    superseded_by: str = ""
    engine: Literal["few-shot"] = "few-shot"
    description: str = ""
    profile: str = ""
    datasets: dict[Label, DatasetEntry] = Field(min_length=1)
    backbones: dict[Label, Entry] = Field(min_length=1)
    algorithms: dict[Label, AlgorithmEntry] = Field(min_length=1)
    ways: list[PositiveInt] | None = Field(default=None, min_length=1)
    shots: list[PositiveInt] = Field(min_length=1)
    queries: Queries = 15
    seeds: list[int] = Field(default=[0], min_length=1)
    exclude: list[Exclusion] = []
    floors: bool = False
    precision: Precision = "float32"
    train: OrNone[Train]
    eval: Evaluation = Evaluation()
    gate: Gate = Gate()
    limits: Limits = Limits()

    @field_validator("ways", "shots", "seeds")
    @classmethod
    def _no_duplicates(cls, values: list[int] | None) -> list[int] | None:
        if values is None:
            return None
        if len(set(values)) < len(values):
            raise ValueError("a value is given twice")
        if min(values) < 0:
            raise ValueError("values must not be negative")
        return values

    @field_validator("ways")
    @classmethod
    def _two_ways(cls, values: list[int] | None) -> list[int] | None:
        if values is not None and min(values) < 2:
            raise ValueError("a way must be at least 2")
        return values

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return the labels of the datasets of training and test, of all cells."""
        return [
            (label, target)
            for label, entry in self.datasets.items()
            for target in ([label] if entry.test_on is None else entry.test_on)
        ]

    def excludes(self, labels: Mapping[str, str]) -> bool:
        """Return whether a cell with these labels is left out."""
        return any(pattern.matches(labels) for pattern in self.exclude)

    def excludes_pair(self, algorithm: str, backbone: str) -> bool:
        """Return whether every cell of an algorithm and a backbone is left out by one pattern."""
        labels = {"algorithm": algorithm, "backbone": backbone}
        return any(pattern.labels.keys() <= labels.keys() and pattern.matches(labels) for pattern in self.exclude)

    def with_seeds(self, seeds: list[int]) -> Suite:
        """Return this suite with other seeds, without patterns of `exclude` for seeds that it then lacks."""
        exclude = [pattern for pattern in self.exclude if pattern.seed is None or pattern.seed in seeds]
        return self.model_copy(update={"seeds": seeds, "exclude": exclude})

    def with_precision(self, precision: Precision) -> Suite:
        """Return this suite with one precision for all algorithms."""
        algorithms = {label: entry.model_copy(update={"precision": None}) for label, entry in self.algorithms.items()}
        return self.model_copy(update={"precision": precision, "algorithms": algorithms})
