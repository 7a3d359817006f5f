from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_ray import RealRay, real_ray, why_not


@pytest.fixture(scope="session")
def ray() -> Iterator[RealRay]:
    """Yield a Ray of three nodes, each of one processor."""
    if reason := why_not():
        pytest.skip(f"no real Ray: {reason}")
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, real_ray(Path(folder), nodes=3) as cluster:
        yield cluster
