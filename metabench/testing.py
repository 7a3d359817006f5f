"""For the tests of other people's plugins, under pytest.

Three lines check an algorithm against everything that the harness counts on::

    from metabench.testing import AlgorithmChecks

    class TestMine(AlgorithmChecks):
        algorithm = "mine"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from metabench.conformance import CHECKS, Subject, run_check


class AlgorithmChecks:
    """Checks an algorithm; subclass it as ``Test…``.

    Attributes:
        algorithm: its name, as its plugin announces it.
        params: its parameters.
        transductive: whether it is meant to look at the other queries.
        steps: outer updates, of two episodes, in which it has to learn something.
    """

    algorithm: ClassVar[str]
    params: ClassVar[Mapping[str, Any]] = {}
    transductive: ClassVar[bool] = False
    steps: ClassVar[int] = 60

    @pytest.mark.parametrize("check", list(CHECKS))
    def test_conforms(self, check: str) -> None:
        """Run one of `metabench.conformance.CHECKS`."""
        run_check(check, Subject(self.algorithm, self.params, self.transductive, self.steps))
