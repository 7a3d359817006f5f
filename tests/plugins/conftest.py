from __future__ import annotations

import os
from pathlib import Path

import pytest

from metabench.data import DataRoots, load_pack
from metabench.packs import Pack
from metabench_plugins.datasets.omniglot import Omniglot, OmniglotConfig


@pytest.fixture(scope="session")
def omniglot_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Return the real Omniglot at 28 pixels, packed once a session in a cache of its own."""
    sources = DataRoots.from_environment(os.environ).sources
    if not any((source / "omniglot").is_dir() for source in sources):
        pytest.skip("real Omniglot not found: set METABENCH_DATA to the folder that holds omniglot/")
    roots = DataRoots(sources, cache=Path(tmp_path_factory.mktemp("cache")), download=False)
    return load_pack("omniglot", Omniglot(OmniglotConfig()), roots, lambda done, total, what: None)
