"""Whether a worker has the software and the data that its driver has planned with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from metabench import __version__
from metabench.executors.origin import harness_hash


def versions() -> dict[str, str]:
    """Return the versions of this process that results depend on."""
    return {"torch": str(torch.__version__), "metabench": f"{__version__} (code {harness_hash()})"}


@dataclass(frozen=True)
class Planned:
    """The software and the data of the driver.

    Attributes:
        versions: `versions` there.
        code: hashes of the code of classes, by kind and name, e.g. ``"algorithm maml"``.
        data: fingerprints of datasets by label.
    """

    versions: Mapping[str, str] = field(default_factory=versions)
    code: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)

    def disagreement(self, here: Planned) -> str:
        """Return how a worker differs, with both sides; empty if it does not."""
        pairs = [
            *((name, self.versions.get(name), found) for name, found in here.versions.items()),
            *((f"code of the {name}", self.code.get(name), found) for name, found in here.code.items()),
            *((f"dataset {name}", self.data.get(name), found) for name, found in here.data.items()),
        ]
        different = [
            f"{name} {found[:40]} here, {planned[:40]} in the run's plan"
            for name, planned, found in pairs
            if planned is not None and planned != found
        ]
        if not different:
            return ""
        return f"the worker on {platform.node()} differs from the run: {'; '.join(different)}: install the same there"
