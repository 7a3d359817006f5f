"""Find plugins, isolate broken ones, and resolve names to classes."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from metabench import __version__
from metabench.errors import PluginError, PluginExited, in_one_line, nearest, shown
from metabench.registry import own
from metabench.registry.calls import LimitedCalls, Stuck
from metabench.registry.code import code_hash
from metabench.registry.configs import InvalidConfig, is_class, short, validate_config
from metabench.registry.file_classes import FileClasses, is_local
from metabench.registry.hooks import Hooks, implements_hooks
from metabench.registry.module_names import callable_of, code_of, is_module, version_of
from metabench.registry.selection import PLUGINS_VARIABLE, select_plugins
from metabench.specs import (
    API_VERSION,
    PROJECT,
    AlgorithmSpec,
    BackboneSpec,
    DatasetSpec,
    EngineSpec,
    ExecutorSpec,
    LoggerSpec,
    Metric,
    MetricSpec,
    PublishedResult,
    Spec,
    SuiteSpec,
)

if TYPE_CHECKING:  # these import torch
    from metabench.api import Algorithm, Backbone, Dataset, EpisodeSource

#: The core's own plugin, which no list of plugins hides.
_OWN = f"{PROJECT}:{own.FEW_SHOT}"

#: Seconds after which an event's hook counts as stuck.
EVENT_SECONDS = 120.0

#: Class of the specs that the hook ``metabench_{kind}s`` returns, by kind.
_SPECS: dict[str, type[Spec] | type[SuiteSpec]] = {
    "algorithm": AlgorithmSpec,
    "backbone": BackboneSpec,
    "dataset": DatasetSpec,
    "suite": SuiteSpec,
    "logger": LoggerSpec,
    "metric": MetricSpec,
    "engine": EngineSpec,
    "executor": ExecutorSpec,
}

_Provided = TypeVar("_Provided", bound=Spec | SuiteSpec | PublishedResult)
_Named = TypeVar("_Named", bound=Spec | SuiteSpec)


@dataclass(frozen=True)
class PluginInfo:
    """An installed plugin.

    Attributes:
        name: name of its entry point.
        distribution: name of its distribution.
        version: version of its distribution.
        problem: reason why it cannot be used; empty if it can.
    """

    name: str
    distribution: str
    version: str
    problem: str = ""

    def __str__(self) -> str:
        return f"'{self.distribution}'" + (f" {self.version}" if self.version else "")


class PluginManager:
    """The plugins of this process.

    A plugin that cannot be imported or registered is kept as a `PluginInfo` with its problem, which is reported when a
    name is requested that no other plugin provides.

    Args:
        entries: the entry points of the group ``metabench``.
        selection: an allow list or a block list (`PLUGINS_VARIABLE`); empty takes all plugins.

    Raises:
        PluginError: `selection` mixes both lists, or names a plugin that is not installed.
    """

    def __init__(self, entries: Iterable[EntryPoint], selection: str = "") -> None:
        self._hooks = Hooks()
        self._files = FileClasses()
        self._infos: dict[str, PluginInfo] = {}
        self._specs_by_kind: dict[str, list[tuple[PluginInfo, Any]]] = {}
        self._calls = LimitedCalls()
        self._stuck: set[str] = set()
        self._imported: dict[str, str] = {}
        selected = select_plugins(list(entries), selection)
        self._hidden = selected.hidden
        self._hooks.register(own, _OWN)
        self._infos[_OWN] = PluginInfo(own.FEW_SHOT, PROJECT, __version__)
        for entry in selected.entries:
            self._add(entry)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> PluginManager:
        """Return a manager of the installed plugins that METABENCH_PLUGINS selects."""
        return cls(entry_points(group=PROJECT), environ.get(PLUGINS_VARIABLE, ""))

    # --------------------------------------------------------------------------------------------- lists

    def plugins(self) -> list[PluginInfo]:
        """Return all plugins, also broken ones, sorted by distribution and name."""
        return sorted(self._infos.values(), key=lambda info: (info.distribution, info.name))

    def algorithms(self) -> dict[str, AlgorithmSpec]:
        """Return the algorithms by name."""
        return self._provided("algorithm", AlgorithmSpec)

    def backbones(self) -> dict[str, BackboneSpec]:
        """Return the backbones by name."""
        return self._provided("backbone", BackboneSpec)

    def datasets(self) -> dict[str, DatasetSpec]:
        """Return the datasets by name."""
        return self._provided("dataset", DatasetSpec)

    def suites(self) -> dict[str, SuiteSpec]:
        """Return the suites by name."""
        return self._provided("suite", SuiteSpec)

    def loggers(self) -> dict[str, LoggerSpec]:
        """Return the loggers by name."""
        return self._provided("logger", LoggerSpec)

    def metrics(self) -> dict[str, MetricSpec]:
        """Return the metrics of plugins by name."""
        return self._provided("metric", MetricSpec)

    def engines(self) -> dict[str, EngineSpec]:
        """Return the engines by name."""
        return self._provided("engine", EngineSpec)

    def executors(self) -> dict[str, ExecutorSpec]:
        """Return the executors by name."""
        return self._provided("executor", ExecutorSpec)

    def published_results(self) -> list[PublishedResult]:
        """Return the published results of all plugins."""
        return [result for _, result in self._specs("published_result", PublishedResult)]

    def hidden(self) -> str:
        """Return a line on the plugins that METABENCH_PLUGINS leaves out; empty if it leaves out none."""
        return self._hidden

    def conflicts(self) -> list[str]:
        """Return an error message for each name that several plugins provide."""
        messages = []
        for kind, spec_class in _SPECS.items():
            claims: dict[str, list[PluginInfo]] = {}
            for info, spec in self._specs(kind, spec_class):
                claims.setdefault(spec.name, []).append(info)
            messages += [_conflict(kind, name, infos) for name, infos in claims.items() if len(infos) > 1]
        return messages

    # ------------------------------------------------------------------------------------------- look-ups

    def suite_path(self, name: str) -> Path:
        """Return the file of the suite `name`."""
        return self._one("suite", name, SuiteSpec).path

    def algorithm_class(self, name: str) -> type[Algorithm]:
        """Import the algorithm `name`.

        Raises:
            PluginError: the name is unknown, or its class cannot be imported or is of another version of the API.
        """
        from metabench.api import Algorithm
        from metabench.api.version_1 import version_1_problem

        cls: type[Algorithm] = self._class("algorithm", name, AlgorithmSpec, Algorithm)
        problem = version_1_problem(cls)
        if problem:
            raise PluginError(f"the algorithm '{name}' of {self.provider('algorithm', name)} cannot be used: {problem}")
        return cls

    def backbone_class(self, name: str) -> type[Backbone]:
        """Import the backbone `name`."""
        from metabench.api import Backbone

        cls: type[Backbone] = self._class("backbone", name, BackboneSpec, Backbone)
        return cls

    def dataset_class(self, name: str) -> type[Dataset] | type[EpisodeSource]:
        """Import the dataset `name`."""
        from metabench.api import Dataset, EpisodeSource

        cls: type[Dataset] | type[EpisodeSource] = self._class("dataset", name, DatasetSpec, Dataset, EpisodeSource)
        return cls

    def logger_class(self, name: str) -> type:
        """Import the logger `name`."""
        cls: type = self._class("logger", name, LoggerSpec, object)
        return cls

    def metric_class(self, name: str) -> type[Metric]:
        """Import the metric `name`."""
        cls: type[Metric] = self._class("metric", name, MetricSpec, Metric)
        return cls

    def engine_class(self, name: str) -> type:
        """Import the engine `name`, a `metabench.contracts.Engine`."""
        self._one("engine", name, EngineSpec)  # a class in a file is none: its jobs could not be sent to workers
        cls: type = self._class("engine", name, EngineSpec, object)
        return cls

    def executor_class(self, name: str) -> type:
        """Import the executor `name`, a `metabench.contracts.Executor`."""
        self._one("executor", name, ExecutorSpec)  # not a class in a file: jobs may be cancelled from another folder
        cls: type = self._class("executor", name, ExecutorSpec, object)
        return cls

    def build_dataset(self, name: str, params: Mapping[str, Any] | None = None) -> Dataset | EpisodeSource:
        """Construct the dataset `name` with parameters.

        Raises:
            PluginError: the dataset is unknown, cannot be imported or constructed, or a parameter is wrong.
        """
        cls = self.dataset_class(name)
        owner = f"the dataset '{name}' of {self.provider('dataset', name)}"
        try:
            return cls(validate_config(cls.Config, params or {}))
        except InvalidConfig as error:
            place = ".".join(map(shown, error.problem.path))
            raise PluginError(f"{owner}: {f'{place}: ' if place else ''}{error}") from error
        except Exception as error:
            raise PluginError(f"{owner} cannot be constructed: {in_one_line(error)}") from error
        except SystemExit as error:
            raise PluginExited(f"{owner} cannot be constructed: {in_one_line(error)}") from error

    def kind_of(self, name: str) -> str:
        """Return the kind of a name, e.g. ``"algorithm"`` or ``"dataset"``.

        Raises:
            PluginError: the name is none of these, or a class in a file cannot be imported.
        """
        if is_module(name):
            return "backbone"
        if is_local(name):
            from metabench.api import Algorithm, Backbone, Dataset, EpisodeSource

            cls = self._class("class", name, Spec, object)
            bases = (
                ("algorithm", Algorithm),
                ("backbone", Backbone),
                ("dataset", (Dataset, EpisodeSource)),
                ("metric", Metric),
            )
            for kind, base in bases:
                if issubclass(cls, base):
                    return kind
            if implements_hooks(cls):
                return "logger"
            raise PluginError(
                f"{name} is no subclass of Algorithm, Backbone or Dataset, or EpisodeSource, of metabench.api, nor of "
                "Metric of metabench.specs, and no logger: none of its methods is marked with "
                "metabench.specs.hookimpl"
            )
        named = {kind: spec_class for kind, spec_class in _SPECS.items() if kind != "suite"}
        for kind, spec_class in named.items():
            if name in self._provided(kind, spec_class):
                return kind
        names = [known for kind, spec_class in named.items() for known in self._provided(kind, spec_class)]
        message = (
            f"no algorithm, backbone, dataset, logger, metric, engine or executor '{shown(name)}'{nearest(name, names)}"
        )
        raise PluginError(". ".join([message, *([self._hidden] if self._hidden else [])]))

    def provider(self, kind: str, name: str) -> str:
        """Return ``"distribution version"`` of the plugin that provides a name.

        Args:
            kind: ``"algorithm"``, ``"backbone"``, ``"dataset"``, ``"suite"``, ``"logger"``, ``"metric"``,
                ``"engine"`` or ``"executor"``.
            name: the name; for a class in a file, the file's name and hash are returned.

        Raises:
            PluginError: no plugin provides the name.
        """
        if is_module(name):
            return version_of(name)
        if is_local(name):
            return self._files.version(name)
        for info, spec in self._specs(kind, _SPECS[kind]):
            if spec.name == name:
                library = _version_of_library(spec)
                return f"{info.distribution} {info.version}".strip() + (f" ({library})" if library else "")
        raise PluginError(f"no {kind} '{name}'")

    def code(self, kind: str, name: str) -> str:
        """Return a hash of the code behind a name, or the `result_version` that its plugin gives.

        Nothing is imported. Of a class that this process has imported, it is the hash from before the import.

        Args:
            kind: ``"algorithm"``, ``"backbone"`` or ``"dataset"``.
            name: the name, or a class in a file.

        Raises:
            PluginError: no plugin provides the name.
        """
        if is_module(name):
            return code_of(name)
        if is_local(name):
            return self._files.version(name)
        for _, spec in self._specs(kind, _SPECS[kind]):
            if spec.name == name and isinstance(spec, Spec):
                if spec.result_version:
                    return f"version {spec.result_version}"
                code = self._imported.get(spec.target) or code_hash(spec.target)
                return f"{code} {_version_of_library(spec)}".strip()
        raise PluginError(f"no {kind} '{name}'")

    # --------------------------------------------------------------------------------------------- events

    def add_logger(self, name: str) -> None:
        """Send the events of runs to the logger `name`, too.

        Raises:
            PluginError: the logger is unknown, cannot be constructed, or needs a package that is not installed.
        """
        try:
            # Constructed by the thread of its hooks, since trackers keep the current run by thread.
            logger = self._calls.call(self.logger_class(name), (), EVENT_SECONDS)
            self._hooks.register_logger(logger, name)
        except (PluginError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginError(f"the logger '{name}' cannot be constructed: {in_one_line(error)}") from error

    def run_started(self, output: Path, suite: Mapping[str, Any], cells: int) -> None:
        """Tell all plugins that a run starts."""
        self._tell("metabench_run_started", output=output, suite=suite, cells=cells)

    def cell_finished(self, output: Path, record: Mapping[str, Any]) -> None:
        """Tell all plugins that a cell has a record."""
        self._tell("metabench_cell_finished", output=output, record=record)

    def run_finished(self, output: Path, records: Iterable[Mapping[str, Any]]) -> None:
        """Tell all plugins that a run has ended."""
        self._tell("metabench_run_finished", output=output, records=list(records))

    # -------------------------------------------------------------------------------------------- private

    def _tell(self, hook: str, **arguments: Any) -> None:
        """Call a hook of every plugin; log the plugins that fail, and call no more the ones that do not return."""
        for implementation in self._hooks.implementations(hook):
            name = implementation.plugin_name
            if name in self._stuck:
                continue
            plugin = f"plugin {self._infos[name]}" if name in self._infos else name
            given = tuple(arguments[argument] for argument in implementation.argnames)
            try:
                self._calls.call(implementation.function, given, EVENT_SECONDS)
            except Stuck as error:
                self._stuck.add(name)
                logging.getLogger(__name__).warning("%s of %s: %s; it is called no more", hook, plugin, error)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                logging.getLogger(__name__).warning("%s of %s failed: %s", hook, plugin, in_one_line(error))

    def _add(self, entry: EntryPoint) -> None:
        distribution = entry.dist.name if entry.dist else "unknown"
        version = entry.dist.version if entry.dist else ""
        key = f"{distribution}:{entry.name}"
        problem = ""
        try:
            plugin = entry.load()
            _check_api_version(plugin)
            self._hooks.register(plugin, key)
            self._specs_by_kind.clear()
        except (Exception, SystemExit) as error:  # a plugin may raise anything; metabench must go on
            problem = in_one_line(error)
        self._infos[key] = PluginInfo(entry.name, distribution, version, problem)

    def _provided(self, kind: str, spec_class: type[_Named]) -> dict[str, _Named]:
        return {spec.name: spec for _, spec in sorted(self._specs(kind, spec_class), key=lambda pair: pair[1].name)}

    def _specs(self, kind: str, spec_class: type[_Provided]) -> list[tuple[PluginInfo, _Provided]]:
        """Return all specs of a kind with their plugins; call each hook only once."""
        if kind not in self._specs_by_kind:
            self._specs_by_kind[kind] = list(self._call_spec_hook(f"metabench_{kind}s", spec_class))
        return self._specs_by_kind[kind]

    def _call_spec_hook(self, hook: str, spec_class: type[_Provided]) -> Iterator[tuple[PluginInfo, _Provided]]:
        """Yield the specs that a hook returns; mark a plugin whose hook fails as broken."""
        for implementation in self._hooks.implementations(hook):
            info = self._infos[implementation.plugin_name]
            try:
                returned: Any = implementation.function()
                specs = list(returned)
                wrong = [spec for spec in specs if not isinstance(spec, spec_class)]
                if wrong:
                    raise TypeError(f"it returned {short(wrong[0])} instead of {spec_class.__name__}")
            except (Exception, SystemExit) as error:
                self._infos[implementation.plugin_name] = replace(info, problem=f"{hook}: {in_one_line(error)}")
                continue
            for spec in specs:
                yield info, spec

    def _one(self, kind: str, name: str, spec_class: type[_Named]) -> _Named:
        """Return the only spec of a name.

        Raises:
            PluginError: no plugin or several plugins provide the name.
        """
        specs = self._specs(kind, spec_class)
        claims = [(info, spec) for info, spec in specs if spec.name == name]
        if len(claims) > 1:
            raise PluginError(_conflict(kind, name, [info for info, _ in claims]))
        if claims:
            return claims[0][1]
        names = sorted(spec.name for _, spec in specs)
        message = f"no {kind} '{shown(name)}'{nearest(name, names)}. Available: {', '.join(names) or 'none'}"
        message += f". {self._hidden}" if self._hidden else ""
        for info in self.plugins():
            if info.problem:
                message += f"\nThe plugin {info} may provide it, but cannot be used: {info.problem}"
        raise PluginError(message)

    def _class(self, kind: str, name: str, spec_class: type[Spec], *bases: type) -> Any:
        """Import the class of a name: the target of a spec, or a class in a file.

        Raises:
            PluginError: the name is unknown, the import fails, or the class is no subclass of one of `bases`.
        """
        requires = ""
        try:
            if is_local(name):
                owner = f"the {kind} {name}"
                cls = self._files.load(name)
            elif is_module(name) and kind == "backbone":
                owner = f"the {kind} {name}"
                cls = callable_of(name)
            else:
                spec = self._one(kind, name, spec_class)
                owner = f"the {kind} '{name}' of {self.provider(kind, name)} ({spec.target})"
                requires = spec.requires
                # The code that this process runs, also if a file is edited afterwards.
                self._imported.setdefault(spec.target, code_hash(spec.target))
                module, _, attribute = spec.target.partition(":")
                cls = getattr(importlib.import_module(module), attribute)
        except PluginError:
            raise
        except Exception as error:
            advice = f"; pip install '{requires}'" if requires and isinstance(error, ImportError) else ""
            raise PluginError(f"{owner} cannot be imported: {in_one_line(error)}{advice}") from error
        except SystemExit as error:
            raise PluginExited(f"{owner} cannot be imported: {in_one_line(error)}") from error
        if kind in ("backbone", "class") and _makes_a_module(cls, is_module(name)):
            from metabench.api.module_backbones import callable_backbone

            cls = callable_backbone(cls)
        base = bases[0]
        if not (is_class(cls) and issubclass(cls, bases)):
            home = "specs" if base is Metric else "api"
            names = " or ".join(f"metabench.{home}.{one.__name__}" for one in bases)
            wanted = "class" if base is object else f"subclass of {names}"
            raise PluginError(f"{owner} is not a {wanted}")
        config: object = getattr(cls, "Config", None)
        if base not in (object, Metric) and not (is_class(config) and issubclass(config, BaseModel)):
            raise PluginError(f"{owner} has a Config that is no subclass of metabench.api.Config: {short(config)}")
        return cls


def _version_of_library(spec: Spec | SuiteSpec) -> str:
    """Return name and version of the distribution that a class wraps; empty if it wraps none, or that is missing."""
    library = getattr(spec, "library", "")
    with suppress(PackageNotFoundError):
        return f"{library} {version(library)}" if library else ""
    return ""


def _makes_a_module(target: Any, of_package: bool) -> bool:
    """Return whether a backbone's target is a callable that makes a torch module: a function, or a package's class."""
    if not is_class(target):
        return callable(target)
    from metabench.api import Backbone

    return of_package and not issubclass(target, Backbone)


def _check_api_version(plugin: object) -> None:
    """Refuse a plugin written for another version of the plugin API.

    Raises:
        PluginError: the plugin's METABENCH_API_VERSION is another.
    """
    version = getattr(plugin, "METABENCH_API_VERSION", API_VERSION)
    if version != API_VERSION:
        advice = "update metabench" if isinstance(version, int) and version > API_VERSION else "update the plugin"
        raise PluginError(f"it is written for version {version} of the plugin API, and this is {API_VERSION}: {advice}")


def _conflict(kind: str, name: str, claimants: list[PluginInfo]) -> str:
    """Return the error message for a name that several plugins provide."""
    claimants = sorted(claimants, key=lambda info: info.distribution)
    providers = " and ".join(str(info) for info in claimants)
    return (
        f"the {kind} '{name}' is provided by {providers}: set {PLUGINS_VARIABLE} to allow one of them, "
        f"or block one ({PLUGINS_VARIABLE}=-{claimants[-1].distribution})"
    )
