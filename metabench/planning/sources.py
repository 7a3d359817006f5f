"""What entries of a suite take from others: weights of another algorithm or a file, datasets of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metabench.errors import nearest, shown

if TYPE_CHECKING:  # `suite` imports this module
    from metabench.planning.suite import Suite
    from metabench.planning.suite_file import SuiteFile

#: The keys of an algorithm that name weights.
SOURCES = ("weights", "init", "teacher")


def check_sources(suite: Suite, file: SuiteFile) -> None:
    """Check that weights come from labels of the suite or from files, and from no circle.

    Paths are relative to the folder of the suite file.

    Raises:
        SuiteError: with the line of the key.
    """
    for label, entry in suite.algorithms.items():
        for kind in SOURCES:
            source = getattr(entry, kind)
            if source is None or source in suite.algorithms:
                continue
            if kind == "teacher" or not (file.path.parent / source).is_file():
                raise file.error(
                    ("algorithms", label, kind),
                    f"'{shown(source)}' is no algorithm of the suite{'' if kind == 'teacher' else ', and no file'}"
                    f"{nearest(source, suite.algorithms)}",
                )
        source = entry.weights
        if source in suite.algorithms and suite.algorithms[source].weights is not None:
            raise file.error(
                ("algorithms", label, "weights"),
                f"'{shown(source)}' is itself tested on weights of '{shown(suite.algorithms[source].weights)}': "
                "name that one",
            )
    for label in suite.algorithms:
        _check_circle(suite, file, [label])


def check_targets(suite: Suite, file: SuiteFile) -> None:
    """Check that the datasets of tests are in the suite, and that something is trained.

    Raises:
        SuiteError: with the line of the key.
    """
    for label, entry in suite.datasets.items():
        for i, target in enumerate(entry.test_on or []):
            place = ("datasets", label, "test_on", i)
            if target not in suite.datasets:
                raise file.error(place, f"the suite has no dataset '{shown(target)}'{nearest(target, suite.datasets)}")
            if target in (entry.test_on or [])[:i]:
                raise file.error(place, f"'{shown(target)}' is given twice")
    if not suite.pairs:
        raise file.error(("datasets",), "nothing is tested: every dataset has an empty test_on")


def _check_circle(suite: Suite, file: SuiteFile, chain: list[str]) -> None:
    """Refuse a chain of labels that comes back to its first one.

    Raises:
        SuiteError: with the line of the last key.
    """
    entry = suite.algorithms[chain[-1]]
    for kind in SOURCES:
        source = getattr(entry, kind)
        if source == chain[0]:
            circle = " → ".join([*chain, source])
            raise file.error(("algorithms", chain[-1], kind), f"the weights come from themselves: {circle}")
        if source in suite.algorithms and source not in chain:
            _check_circle(suite, file, [*chain, source])
