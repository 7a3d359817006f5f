"""Algorithms and backbones as PyTorch modules."""

from __future__ import annotations

import abc

import pytest
from torch import nn

from metabench.api import Algorithm, Backbone


class AbstractFirst(abc.ABC, nn.Module):
    """A base class as in `higher`, which subclasses the class of any module together with it."""


class ModuleFirst(nn.Module, abc.ABC):
    """A base class in the other order."""


@pytest.mark.parametrize("base", [Algorithm, Backbone])
@pytest.mark.parametrize("other", [AbstractFirst, ModuleFirst])
def test_a_library_may_subclass_them_together_with_its_own_base(base: type, other: type) -> None:
    assert issubclass(type("Patched", (base, other), {}), (base, other))


@pytest.mark.parametrize("base", [Algorithm, Backbone])
def test_their_abstract_methods_must_be_written(base: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        type("Incomplete", (base,), {})(None, None)
