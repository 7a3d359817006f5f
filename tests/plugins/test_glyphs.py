from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metabench import api
from metabench.packs import Pack
from metabench_plugins.datasets.glyphs import Glyphs


@pytest.fixture(scope="module")
def glyphs() -> Glyphs:
    return Glyphs(Glyphs.Config())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> api.DatasetFiles:
    class Nowhere:
        sources = ()
        cache = tmp_path_factory.mktemp("cache")
        download = False

    return Nowhere()


@pytest.fixture(scope="module")
def pack(glyphs: Glyphs, files: api.DatasetFiles) -> Pack:
    return glyphs.pack(files, lambda done, total, what: None)


def test_every_machine_draws_the_same_glyphs(pack: Pack) -> None:
    # A change here changes every result on glyphs: give the dataset a new version with it.
    assert Glyphs.version == "1"
    assert pack.fingerprint == "3d5fc46f4fe0ee106790b9fd97dcab4bd7469e6eace60bcdf4af7f1636b10a65"


def test_progress_counts_up_to_the_total(glyphs: Glyphs, files: api.DatasetFiles) -> None:
    calls: list[tuple[int, int, str]] = []
    glyphs.pack(files, lambda *call: calls.append(call))
    assert [done for done, _, _ in calls] == list(range(1, 351))
    assert {call[1:] for call in calls} == {(350, "drawing glyphs")}


def test_the_pack_is_350_characters_of_20_drawings(pack: Pack) -> None:
    assert pack.images.shape == (7000, 1, 28, 28)
    assert pack.images.dtype == np.uint8
    np.testing.assert_array_equal(pack.offsets, np.arange(351) * 20)
    assert len(set(pack.class_names)) == 350


def test_splits_are_disjoint_and_as_large_as_announced(glyphs: Glyphs, pack: Pack) -> None:
    splits = glyphs.split(pack)
    assert {name: split.size for name, split in splits.items()} == glyphs.sizes()
    assert [len(splits[name].class_names) for name in ("train", "val", "test")] == [200, 50, 100]
    names = [name for split in splits.values() for name in split.class_names]
    assert names == list(pack.class_names)
    images = torch.cat([split.images for split in splits.values()])
    np.testing.assert_array_equal(images.numpy(), pack.images)


def test_no_drawing_is_empty_or_repeated(pack: Pack) -> None:
    drawings = pack.images.reshape(7000, -1)
    assert (drawings > 127).sum(axis=1).min() >= 10
    assert len(np.unique(drawings, axis=0)) == 7000


def test_pixels_alone_do_not_solve_it(glyphs: Glyphs, pack: Pack) -> None:
    """5-way 1-shot by nearest neighbour in pixels is far above chance (20 %), and far from solved."""
    test = glyphs.split(pack)["test"]
    drawings = test.images.float().reshape(100, 20, -1)
    rng = np.random.default_rng(0)
    correct = []
    for _ in range(300):
        chosen = drawings[torch.from_numpy(rng.permutation(100)[:5])]
        distances = torch.cdist(chosen[:, 1:].flatten(0, 1), chosen[:, 0])
        correct.append((distances.argmin(1) == torch.arange(5).repeat_interleave(19)).float().mean())
    assert 0.5 < float(torch.stack(correct).mean()) < 0.7


def test_it_has_no_parameters() -> None:
    with pytest.raises(ValidationError):
        Glyphs.Config.model_validate({"seed": 1})
