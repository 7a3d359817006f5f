"""Ask the classes of a suite for their parameters and sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from metabench.data.validation import check_sizes
from metabench.errors import DataError, PluginError, PluginExited, in_one_line
from metabench.files import is_weights_file, sha256_of
from metabench.planning.suite import AlgorithmEntry, Entry, Suite
from metabench.planning.suite_file import SuiteFile
from metabench.planning.suite_text import KeyPath
from metabench.registry.configs import InvalidConfig, complete_params, test_time_names
from metabench.registry.manager import PluginManager
from metabench.specs import TaskKind

if TYPE_CHECKING:  # imports torch
    from metabench.api import Algorithm, Backbone, Config, Dataset, EpisodeSource, SplitSize

_T = TypeVar("_T")

#: Values of `metabench.api.Algorithm.trains_on`.
_TRAINS_ON = ("episodes", "images", "nothing")


@dataclass(frozen=True)
class Choice:
    """An algorithm, dataset or backbone, with its parameters.

    Attributes:
        label: its name in the suite and the leaderboard.
        name: its name in the plugin.
        params: all its parameters, defaults included.
        weights_sha256: hash of the file that a backbone's parameter ``weights`` names; empty if it names none.
    """

    label: str
    name: str
    params: Mapping[str, Any]
    weights_sha256: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """Return name and parameters as results depend on them: a file of weights by its content, not its place."""
        content = {"weights": self.weights_sha256} if self.weights_sha256 else {}
        return {"name": self.name, "params": {**self.params, **content}}

    @property
    def identity(self) -> dict[str, Any]:
        """Return label, name and parameters, likewise."""
        return {"label": self.label, **self.settings}


@dataclass(frozen=True)
class AlgorithmTraits:
    """The flags of an algorithm's class that a plan needs; see `metabench.api.Algorithm`.

    Attributes:
        any_way: whether one training serves tests of any way.
        draws: whether its construction or an episode draws random numbers.
        trains_on: episodes, images or nothing.
        prepares: whether it sees the training images once before a test.
        test_time_names: names of the parameters that only a test uses (`metabench.api.at_test`).
    """

    any_way: bool = False
    draws: bool = True
    trains_on: str = "episodes"
    prepares: bool = False
    test_time_names: frozenset[str] = frozenset()

    def test_time(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that only a test uses."""
        return {name: value for name, value in params.items() if name in self.test_time_names}

    def without_test_time(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that a training uses."""
        return {name: value for name, value in params.items() if name not in self.test_time_names}


class Targets:
    """The classes that a suite names.

    An entry whose class exits or ends its process keeps the parameters of the suite, and has a problem.

    Args:
        file: the suite file, for the lines in error messages.
        plugins: the provider of the classes.
        asking: called with the place of an entry, e.g. ``"algorithms.maml"``, before its class is asked.
        problems: problems that are known already, by place; these classes are not asked.
    """

    def __init__(
        self,
        file: SuiteFile,
        plugins: PluginManager,
        asking: Callable[[str], None] = lambda place: None,
        problems: Mapping[str, str] | None = None,
    ) -> None:
        self._file = file
        self._plugins = plugins
        self._asking = asking
        self._problems = dict(problems or {})

    def choice(self, kind: str, label: str, entry: Entry) -> Choice:
        """Return an entry's name and complete parameters.

        Raises:
            SuiteError: a parameter is wrong, or the name is unknown or its plugin broken.
        """
        name, place = entry.use or label, (f"{kind}s", label)

        def complete() -> dict[str, Any]:
            config = self._config(kind, name, (*place, "use") if entry.use else place)
            return self._complete(config, entry.params, (*place, "params"))

        params = self._asked(place, complete, otherwise=_plain(entry.params))
        return Choice(label, name, params, self._weights_sha256(kind, params, (*place, "params", "weights")))

    def backbones(
        self, suite: Suite, shared: Mapping[str, Choice], algorithm: str, entry: AlgorithmEntry
    ) -> list[Choice]:
        """Return an algorithm's backbones, with its changes of their parameters.

        Args:
            suite: the resolved suite.
            shared: the suite's backbones, by label.
            algorithm: label of the algorithm.
            entry: the algorithm's entry.

        Raises:
            SuiteError: a parameter is wrong.
        """
        used = {label: choice for label, choice in shared.items() if not suite.excludes_pair(algorithm, label)}
        if not entry.backbone:
            return list(used.values())
        return [self._changed(choice, suite.backbones[label], algorithm, entry) for label, choice in used.items()]

    def algorithm_traits(self, algorithm: Choice) -> AlgorithmTraits:
        """Return the flags of an algorithm's class.

        Raises:
            PluginError: it trains on something else than episodes, images or nothing.
        """

        def traits() -> AlgorithmTraits:
            from metabench.api import Algorithm

            found = self._plugins.algorithm_class(algorithm.name)
            if found.trains_on not in _TRAINS_ON:
                raise PluginError(
                    f"the algorithm '{algorithm.name}' has trains_on = {found.trains_on!r}: it must be one of "
                    f"{', '.join(map(repr, _TRAINS_ON))}"
                )
            return AlgorithmTraits(
                any_way=bool(found.any_way),
                draws=bool(found.draws),
                trains_on=found.trains_on,
                prepares=found.prepare is not Algorithm.prepare,
                test_time_names=test_time_names(found.Config),
            )

        return self._asked(("algorithms", algorithm.label), traits, otherwise=AlgorithmTraits())

    def backbone_draws(self, backbone: Choice) -> bool:
        """Return whether constructing a backbone draws random numbers."""
        place = ("backbones", backbone.label)
        return self._asked(place, lambda: bool(self._plugins.backbone_class(backbone.name).draws), otherwise=True)

    def task(self, dataset: Choice) -> TaskKind:
        """Return the kind of tasks of a dataset: ``"classification"``, or ``"regression"`` of a source."""

        def kind() -> TaskKind:
            found = self._plugins.dataset_class(dataset.name)
            return "regression" if found.makes_episodes else "classification"

        return self._asked(("datasets", dataset.label), kind, otherwise="classification")

    def sizes(self, dataset: Choice) -> Mapping[str, SplitSize] | None:
        """Return the split sizes of a dataset; None if unknown before loading, and of a source.

        Raises:
            DataError: the sizes are not as they must be.
            PluginError: the dataset cannot be constructed, or fails.
        """

        def announced() -> Mapping[str, SplitSize] | None:
            owner = f"the dataset '{dataset.name}' of {self._plugins.provider('dataset', dataset.name)}"
            built = self._plugins.build_dataset(dataset.name, dataset.params)
            try:
                return check_sizes(dataset.name, built.sizes()) if hasattr(built, "sizes") else None
            except (DataError, PluginError):
                raise
            except Exception as error:  # a plugin may raise anything
                raise PluginError(f"{owner} failed to return its sizes: {in_one_line(error)}") from error
            except SystemExit as error:
                raise PluginExited(f"{owner} ended in sizes(): {in_one_line(error)}") from error

        return self._asked(("datasets", dataset.label), announced, otherwise=None)

    def problem(self, algorithm: Choice, dataset: Choice, backbone: Choice) -> str:
        """Return why a cell of these cannot run; empty if it can."""
        places = [
            ("algorithms", algorithm.label),
            ("datasets", dataset.label),
            ("backbones", backbone.label),
            ("algorithms", algorithm.label, "backbone", backbone.label),
        ]
        return next((self._problems[_dotted(place)] for place in places if _dotted(place) in self._problems), "")

    def _changed(self, shared: Choice, backbone: Entry, algorithm: str, entry: AlgorithmEntry) -> Choice:
        place = ("algorithms", algorithm, "backbone", shared.label)
        params = {**backbone.params, **entry.backbone}

        def complete() -> dict[str, Any]:
            config = self._config("backbone", shared.name, ("backbones", shared.label))
            return self._complete(config, params, place[:3])

        if _dotted(("backbones", shared.label)) in self._problems:
            return replace(shared, params=_plain(params))
        changed = self._asked(place, complete, otherwise=_plain(params))
        return replace(shared, params=changed, weights_sha256=self._weights_sha256("backbone", changed, place))

    def _weights_sha256(self, kind: str, params: Mapping[str, Any], place: KeyPath) -> str:
        """Return the hash of the file that a backbone's parameter ``weights`` names; empty if it names none.

        Raises:
            SuiteError: the file cannot be read.
        """
        weights = params.get("weights")
        if kind != "backbone" or not is_weights_file(weights):
            return ""
        try:
            return sha256_of(weights)
        except OSError as error:
            raise self._file.error(place, f"cannot read the weights {weights}: {error.strerror}") from error

    def _asked(self, place: tuple[str, ...], question: Callable[[], _T], otherwise: _T) -> _T:
        """Return the answer of a class; `otherwise` if it exits, or ended an earlier process."""
        if _dotted(place) in self._problems:
            return otherwise
        self._asking(_dotted(place))
        try:
            return question()
        except PluginExited as error:
            self._problems[_dotted(place)] = str(error)
            return otherwise

    def _config(self, kind: str, name: str, place: KeyPath) -> type[Config]:
        """Return the `Config` of a class.

        Raises:
            PluginExited: importing the class ended the process.
            SuiteError: the name is unknown, or its plugin broken.
        """
        kinds: Mapping[str, Callable[[str], type[Dataset] | type[EpisodeSource] | type[Algorithm] | type[Backbone]]] = {
            "dataset": self._plugins.dataset_class,
            "algorithm": self._plugins.algorithm_class,
            "backbone": self._plugins.backbone_class,
        }
        try:
            return kinds[kind](name).Config
        except PluginExited:
            raise
        except PluginError as error:
            raise self._file.error(place, str(error)) from error

    def _complete(self, config: type[Config], params: Mapping[str, Any], place: KeyPath) -> dict[str, Any]:
        try:
            return complete_params(config, params)
        except InvalidConfig as error:
            raise self._file.error((*place, *error.problem.path), error.problem.message) from error


def _dotted(place: KeyPath) -> str:
    return ".".join(map(str, place))


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as plain data, without the help of a `Config`."""
    return dict(json.loads(json.dumps(dict(params), default=str)))
