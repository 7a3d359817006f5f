"""What is searched for a parameter, of plugins and of the built-ins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from metabench.api import Config
from metabench.errors import PluginError
from metabench.registry.configs import InvalidConfig, search_space, validate_config
from metabench.registry.manager import PluginManager
from metabench.specs import Float, Integer, OneOf, SearchRange


class Named(Config):
    """Parameters with a search of one that there is not."""

    search_space: ClassVar[Mapping[str, SearchRange]] = {"raet": Float(0, 1)}

    rate: float = 0.5


class Listed(Config):
    """Parameters with a search that is no range."""

    search_space: ClassVar[Mapping[str, Any]] = {"rate": [0, 1]}

    rate: float = 0.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Named, r"search_space of Named has 'raet', which is none of its parameters \(did you mean 'rate'\?\)"),
        (Listed, r"'rate' must be a Float, an Integer or OneOf, not \[0, 1\]"),
    ],
)
def test_a_search_of_no_parameter_is_refused(config: type[Config], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        search_space(config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(1, 1), "must be below"),
        (lambda: Integer(3, 2), "must be below"),
        (lambda: Float(0, 1, log=True), "begins above 0"),
        (lambda: OneOf(["a"]), "fewer than two values"),
    ],
)
def test_a_range_without_anything_in_it_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_ranges_contain_values_of_their_type_only() -> None:
    assert Float(0, 2).contains(1)
    assert not Float(0, 2).contains(None)
    assert not Float(0, 2).contains(True)
    assert not Integer(1, 3).contains(2.0)
    assert OneOf([1, None]).contains(None)
    assert not OneOf([1, None]).contains(True)


def test_every_value_of_a_built_in_search_is_valid(plugins: PluginManager) -> None:
    searched = {}
    for name in plugins.algorithms():
        config = plugins.algorithm_class(name).Config
        searched[name] = search_space(config)
        for parameter, space in searched[name].items():
            for value in space.values if isinstance(space, OneOf) else (space.low, space.high):
                assert space.contains(value)
                try:
                    validate_config(config, {parameter: value})
                except InvalidConfig as error:
                    pytest.fail(f"{name}.{parameter} = {value}: {error}")
    assert all(searched.values()), "every built-in method has something to search"
