"""Objects whose functions implement hooks."""

from __future__ import annotations

from collections.abc import Iterator

import pluggy

from metabench.errors import PluginError
from metabench.registry import hookspecs
from metabench.specs import PROJECT


class Hooks:
    """The registered modules and objects, and their implementations of hooks."""

    def __init__(self) -> None:
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(hookspecs)

    def register(self, plugin: object, key: str) -> None:
        """Register a plugin; after an error, leave no trace of it.

        Raises:
            PluginError: the plugin wraps a hook.
            PluginValidationError: the plugin implements an unknown hook, or a hook with unknown arguments.
        """
        try:
            self._pluggy.register(plugin, name=key)
            self._pluggy.check_pending()
            for caller in self._pluggy.get_hookcallers(plugin) or []:
                implementations = [hook for hook in caller.get_hookimpls() if hook.plugin is plugin]
                if any(hook.wrapper or hook.hookwrapper for hook in implementations):
                    raise PluginError(
                        f"it wraps {caller.name}: metabench calls no wrappers; mark it with plain @hookimpl"
                    )
        except BaseException:
            if self._pluggy.has_plugin(key):
                self._pluggy.unregister(name=key)
            raise

    def register_logger(self, logger: object, name: str) -> None:
        """Register a logger, which implements at least one hook.

        Raises:
            PluginError: it implements none, or wraps one.
            PluginValidationError: as `register`.
        """
        self.register(logger, f"logger {name}")
        if not self._pluggy.get_hookcallers(logger):
            raise PluginError(f"the logger '{name}' implements no hook: mark its methods with metabench.specs.hookimpl")

    def implementations(self, hook: str) -> Iterator[pluggy.HookImpl]:
        """Yield a hook's implementations in pluggy's calling order.

        The order is tryfirst, the last registered, …, trylast. Each is called on its own, so that a plugin that raises
        does not stop the others.
        """
        yield from reversed(getattr(self._pluggy.hook, hook).get_hookimpls())


def implements_hooks(cls: type) -> bool:
    """Return whether a method of a class is marked with `metabench.specs.hookimpl`."""
    return any(hasattr(getattr(cls, name, None), f"{PROJECT}_impl") for name in dir(cls))
