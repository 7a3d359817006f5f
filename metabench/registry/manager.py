"""One typed manager around pluggy: finds plugins, isolates broken ones, and resolves names to classes."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from metabench.errors import PluginError, in_one_line, nearest
from metabench.registry import hookspecs
from metabench.registry.configs import InvalidConfig, is_class, short, validate_config
from metabench.registry.file_classes import FileClasses, is_local
from metabench.specs import (
    API_VERSION,
    PROJECT,
    AlgorithmSpec,
    BackboneSpec,
    DatasetSpec,
    LoggerSpec,
    PublishedResult,
    Spec,
    SuiteSpec,
)

if TYPE_CHECKING:  # these import torch
    from metabench.api import Algorithm, Backbone, Dataset

#: Allow list ("mine,other"), or block list ("-mine,-other"), of distributions or entry points.
PLUGINS_VARIABLE = "METABENCH_PLUGINS"

#: What the hook ``metabench_{kind}s`` returns, for each kind of thing.
_SPECS: dict[str, type[Spec] | type[SuiteSpec]] = {
    "algorithm": AlgorithmSpec,
    "backbone": BackboneSpec,
    "dataset": DatasetSpec,
    "suite": SuiteSpec,
    "logger": LoggerSpec,
}

_Provided = TypeVar("_Provided", bound=Spec | SuiteSpec | PublishedResult)
_Named = TypeVar("_Named", bound=Spec | SuiteSpec)


@dataclass(frozen=True)
class PluginInfo:
    """A plugin that was found.

    Attributes:
        name: of its entry point.
        distribution: which brought it.
        version: of that distribution.
        problem: why it cannot be used; empty where it can.
    """

    name: str
    distribution: str
    version: str
    problem: str = ""

    def __str__(self) -> str:
        return f"'{self.distribution}'" + (f" {self.version}" if self.version else "")


class PluginManager:
    """The plugins of this process.

    A plugin that cannot be imported or registered is kept as a `PluginInfo` with its problem; nothing is
    raised until somebody asks for a name that only it could provide.

    Args:
        found: the entry points of the group ``metabench``.
        selection: the allow or block list; empty takes all.

    Raises:
        PluginError: `selection` mixes both, or names a plugin that is not installed.
    """

    def __init__(self, found: Iterable[EntryPoint], selection: str = "") -> None:
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._files = FileClasses()
        self._infos: dict[str, PluginInfo] = {}
        self._offers: dict[str, list[tuple[PluginInfo, Any]]] = {}
        for entry in _selected(list(found), selection):
            self._add(entry)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> PluginManager:
        """Return a manager of the installed plugins that `METABENCH_PLUGINS` lets through."""
        return cls(entry_points(group=PROJECT), environ.get(PLUGINS_VARIABLE, ""))

    # ------------------------------------------------------------------------------------ what there is

    def plugins(self) -> list[PluginInfo]:
        """Return all plugins, broken ones too, by name."""
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

    def published_results(self) -> list[PublishedResult]:
        """Return the published accuracies that plugins know of."""
        return [result for _, result in self._specs("published_result", PublishedResult)]

    def conflicts(self) -> list[str]:
        """Return what is wrong with each name that is claimed more than once, and so cannot be used."""
        found = []
        for kind, spec_class in _SPECS.items():
            claims: dict[str, list[PluginInfo]] = {}
            for info, spec in self._specs(kind, spec_class):
                claims.setdefault(spec.name, []).append(info)
            found += [_conflict(kind, name, infos) for name, infos in claims.items() if len(infos) > 1]
        return found

    # ----------------------------------------------------------------------------------- names to things

    def suite_path(self, name: str) -> Path:
        """Return the file of the suite `name`."""
        return self._one("suite", name, SuiteSpec).path

    def algorithm_class(self, name: str) -> type[Algorithm]:
        """Import the algorithm `name`."""
        from metabench.api import Algorithm

        found: type[Algorithm] = self._class("algorithm", name, AlgorithmSpec, Algorithm)
        return found

    def backbone_class(self, name: str) -> type[Backbone]:
        """Import the backbone `name`."""
        from metabench.api import Backbone

        found: type[Backbone] = self._class("backbone", name, BackboneSpec, Backbone)
        return found

    def dataset_class(self, name: str) -> type[Dataset]:
        """Import the dataset `name`."""
        from metabench.api import Dataset

        found: type[Dataset] = self._class("dataset", name, DatasetSpec, Dataset)
        return found

    def build_dataset(self, name: str, params: Mapping[str, Any] | None = None) -> Dataset:
        """Return the dataset `name` with these parameters.

        Raises:
            PluginError: there is no such dataset, it cannot be imported, or the parameters do not fit.
        """
        cls = self.dataset_class(name)
        who = f"the dataset '{name}' of {self.provider('dataset', name)}"
        try:
            return cls(validate_config(cls.Config, params or {}))
        except InvalidConfig as error:
            place = ".".join(map(str, error.problem.path))
            raise PluginError(f"{who}: {f'{place}: ' if place else ''}{error}") from error
        except Exception as error:
            raise PluginError(f"{who} cannot be made: {in_one_line(error)}") from error

    def provider(self, kind: str, name: str) -> str:
        """Return ``"distribution version"`` of the plugin that provides the `kind` named `name`."""
        if is_local(name):
            return self._files.version(name)
        for info, spec in self._specs(kind, _SPECS[kind]):
            if spec.name == name:
                return f"{info.distribution} {info.version}".strip()
        raise PluginError(f"no {kind} '{name}'")

    # --------------------------------------------------------------------------------------------- events

    def add_logger(self, name: str) -> None:
        """Let the logger `name` hear of the events, too.

        Raises:
            PluginError: there is no such logger, or what it needs is not installed.
        """
        try:
            logger = self._class("logger", name, LoggerSpec, object)()
            self._register(logger, f"logger {name}")
            if not self._pluggy.get_hookcallers(logger):
                raise PluginError(
                    f"the logger '{name}' implements no hook: mark its methods with metabench.specs.hookimpl"
                )
        except PluginError as error:
            spec = self.loggers().get(name)
            missing = spec.requires if spec and isinstance(error.__cause__, ImportError) else ""
            raise PluginError(f"{error}; pip install '{missing}'" if missing else str(error)) from error
        except Exception as error:
            raise PluginError(f"the logger '{name}' cannot be made: {in_one_line(error)}") from error

    def run_started(self, output: Path, suite: Mapping[str, Any], cells: int) -> None:
        """Tell all plugins that a run begins."""
        self._tell("metabench_run_started", output=output, suite=suite, cells=cells)

    def cell_finished(self, output: Path, record: Mapping[str, Any]) -> None:
        """Tell all plugins that a cell has a record."""
        self._tell("metabench_cell_finished", output=output, record=record)

    def run_finished(self, output: Path, records: Iterable[Mapping[str, Any]]) -> None:
        """Tell all plugins that a run is over."""
        self._tell("metabench_run_finished", output=output, records=list(records))

    # -------------------------------------------------------------------------------------------- private

    def _tell(self, hook: str, **arguments: Any) -> None:
        """Call a hook of every plugin; log a plugin that fails, and go on."""
        for implementation in self._implementations(hook):
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except (Exception, SystemExit) as error:
                name = implementation.plugin_name
                plugin = f"plugin {self._infos[name]}" if name in self._infos else name
                logging.getLogger(__name__).warning("%s of %s failed: %s", hook, plugin, in_one_line(error))

    def _implementations(self, hook: str) -> Iterator[pluggy.HookImpl]:
        """Yield a hook's implementations in pluggy's order: tryfirst, the last registered, …, trylast.

        The hook is not called as a whole, so that a plugin that raises stops no other plugin.
        """
        yield from reversed(getattr(self._pluggy.hook, hook).get_hookimpls())

    def _add(self, entry: EntryPoint) -> None:
        distribution = entry.dist.name if entry.dist else "unknown"
        version = entry.dist.version if entry.dist else ""
        key = f"{distribution}:{entry.name}"
        problem = ""
        try:
            plugin = entry.load()
            _check_api_version(plugin)
            self._register(plugin, key)
        except (Exception, SystemExit) as error:  # a plugin may raise anything; it must not take the tool down
            problem = in_one_line(error)
        self._infos[key] = PluginInfo(entry.name, distribution, version, problem)

    def _register(self, plugin: object, key: str) -> None:
        """Register a plugin, or leave everything as it was.

        Raises:
            PluginError: the plugin wraps a hook.
            PluginValidationError: the plugin implements a hook that does not exist, or with unknown arguments.
        """
        try:
            self._pluggy.register(plugin, name=key)
            self._pluggy.check_pending()
            for caller in self._pluggy.get_hookcallers(plugin) or []:
                own = [implementation for implementation in caller.get_hookimpls() if implementation.plugin is plugin]
                if any(implementation.wrapper or implementation.hookwrapper for implementation in own):
                    raise PluginError(
                        f"it wraps {caller.name}: metabench calls no wrappers; mark it with plain @hookimpl"
                    )
        except BaseException:
            if self._pluggy.has_plugin(key):
                self._pluggy.unregister(name=key)
            raise
        self._offers.clear()

    def _provided(self, kind: str, spec_class: type[_Named]) -> dict[str, _Named]:
        return {spec.name: spec for _, spec in sorted(self._specs(kind, spec_class), key=lambda found: found[1].name)}

    def _specs(self, kind: str, spec_class: type[_Provided]) -> list[tuple[PluginInfo, _Provided]]:
        """Return the specs of each plugin; each hook is called once, and a plugin whose hook fails marked as broken."""
        if kind not in self._offers:
            self._offers[kind] = list(self._asked(f"metabench_{kind}s", spec_class))
        return self._offers[kind]

    def _asked(self, hook: str, spec_class: type[_Provided]) -> Iterator[tuple[PluginInfo, _Provided]]:
        for implementation in self._implementations(hook):
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
        """Return the one spec of this name, or say why there is none."""
        offered = self._specs(kind, spec_class)
        claims = [(info, spec) for info, spec in offered if spec.name == name]
        if len(claims) > 1:
            raise PluginError(_conflict(kind, name, [info for info, _ in claims]))
        if claims:
            return claims[0][1]
        names = sorted(spec.name for _, spec in offered)
        message = f"no {kind} '{name}'{nearest(name, names)}. Available: {', '.join(names) or 'none'}"
        for info in self.plugins():
            if info.problem:
                message += f"\nThe plugin {info} may provide it, but cannot be used: {info.problem}"
        raise PluginError(message)

    def _class(self, kind: str, name: str, spec_class: type[Spec], base: type) -> Any:
        """Import what a name stands for, the target of a spec or a class in a file, and check what it is."""
        try:
            if is_local(name):
                who = f"the {kind} {name}"
                found = self._files.load(name)
            else:
                spec = self._one(kind, name, spec_class)
                who = f"the {kind} '{name}' of {self.provider(kind, name)} ({spec.target})"
                module, _, attribute = spec.target.partition(":")
                found = getattr(importlib.import_module(module), attribute)
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(f"{who} cannot be imported: {in_one_line(error)}") from error
        if not (is_class(found) and issubclass(found, base)):
            raise PluginError(f"{who} is not a subclass of metabench.api.{base.__name__}")
        return found


def _check_api_version(plugin: object) -> None:
    """Refuse a plugin that says that it is written for another version of the API."""
    wanted = getattr(plugin, "METABENCH_API_VERSION", API_VERSION)
    if wanted != API_VERSION:
        what = "update metabench" if isinstance(wanted, int) and wanted > API_VERSION else "update the plugin"
        raise PluginError(f"it is written for version {wanted} of the plugin API, and this is {API_VERSION}: {what}")


def _conflict(kind: str, name: str, claimants: list[PluginInfo]) -> str:
    claimants = sorted(claimants, key=lambda info: info.distribution)
    who = " and ".join(str(info) for info in claimants)
    return (
        f"the {kind} '{name}' is provided by {who}: set {PLUGINS_VARIABLE} to allow one of them, "
        f"or block one ({PLUGINS_VARIABLE}=-{claimants[-1].distribution})"
    )


def _selected(found: list[EntryPoint], selection: str) -> list[EntryPoint]:
    """Apply the allow or block list of `METABENCH_PLUGINS`."""
    words = [word.strip() for word in selection.split(",") if word.strip()]
    if not words:
        return found
    blocked = {word[1:] for word in words if word.startswith("-")}
    allowed = {word for word in words if not word.startswith("-")}
    if blocked and allowed:
        raise PluginError(f"{PLUGINS_VARIABLE}={selection!r} both allows and blocks: give either names, or -names")
    known = {name for entry in found for name in _names(entry)}
    for word in sorted(blocked | allowed):
        if word not in known:
            raise PluginError(
                f"{PLUGINS_VARIABLE} names '{word}', which is not installed{nearest(word, known)}. "
                f"Installed: {', '.join(sorted(known)) or 'none'}"
            )
    if blocked:
        return [entry for entry in found if not blocked & _names(entry)]
    return [entry for entry in found if allowed & _names(entry)]


def _names(entry: EntryPoint) -> set[str]:
    return {entry.name} | ({entry.dist.name} if entry.dist else set())
