"""A node of a real Ray that does not see the output directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_ray import RealRay
from runs import SUITE, Run


@pytest.fixture
def hidden(ray: RealRay, tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that one of the nodes does not see."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    node = ray.add_node(hidden=folder)
    yield folder
    ray.kill_node(node)


@pytest.mark.slow
def test_a_node_without_the_output_directory_has_the_digits_of_the_others(
    ray: RealRay, hidden: Path, tmp_path: Path
) -> None:
    options = ["--seeds", ",".join(map(str, range(8)))]
    plain = Run(tmp_path / "plain", SUITE, options)
    assert plain.finish(900) == 0
    run = Run(hidden / "run", SUITE, options, ray)
    assert run.finish(900) == 0, run.errors
    assert run.digits == plain.digits
    hosts = [record.circumstances.host for record in run.records.values() if record.circumstances]
    assert "far" in hosts
    assert set(run.store.trainings()) == set(plain.store.trainings())
