from __future__ import annotations

import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metabench.api import Episodes, Split
from metabench.data.order import Order, content_of, episodes_key
from metabench.data.sampler import EpisodeShape
from metabench.engine.streams import EpisodeStream
from tiny import CPU

SHAPE = EpisodeShape(3, 1, 2)
SIZES = [4, 5, 3, 6, 4, 3]
NAMES = ["Ünye", "atlas", "Zagreb", "épée", "b@90", "b"]


def split() -> Split:
    """Return a split of six classes, whose images show their own number."""
    n = sum(SIZES)
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1)
    names = [f"{i:03d}" for i in range(n)]
    return Split(images, torch.tensor([0, *SIZES]).cumsum(0), NAMES, groups=[9, 8, 7, 6, 5, 4], image_names=names)


def shuffled(content: Split, classes: list[int], seed: int) -> Split:
    """Return the split with its classes in another order, and the images of each class in another order."""
    rng = np.random.default_rng(seed)
    bounds = content.offsets.tolist()
    members = [rng.permutation(np.arange(bounds[c], bounds[c + 1])) for c in classes]
    order = np.concatenate(members)
    assert content.image_names is not None
    assert content.groups is not None
    return Split(
        content.images[torch.from_numpy(order)],
        torch.tensor([0, *(len(images) for images in members)]).cumsum(0),
        [content.class_names[c] for c in classes],
        groups=[content.groups[c] for c in classes],
        image_names=[content.image_names[i] for i in order],
    )


def drawn(content: Split, name: str = "test", seed: int = 0, shape: EpisodeShape = SHAPE) -> Episodes:
    return EpisodeStream(content, shape, name, seed, CPU).batch(0, 20)


def same(one: Episodes, other: Episodes) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("support_x", "query_x", "query_y"))


def key(content: Split, name: str = "test", seed: int = 0, shape: EpisodeShape = SHAPE) -> str:
    return episodes_key(content, name, shape, seed, content_of(content))


@given(st.permutations(range(6)), st.integers(0, 1000))
def test_the_order_of_classes_and_files_changes_no_episode(classes: list[int], seed: int) -> None:
    one, other = split(), shuffled(split(), classes, seed)
    assert same(drawn(one), drawn(other))
    assert key(one) == key(other)
    streams = [EpisodeStream(content, SHAPE, "test", 0, CPU) for content in (one, other)]
    np.testing.assert_array_equal(*(stream.groups(0, 20) for stream in streams))
    ungrouped = [EpisodeStream(replace(content, groups=None), SHAPE, "test", 0, CPU) for content in (one, other)]
    np.testing.assert_array_equal(*(stream.groups(0, 20) for stream in ungrouped))
    names = [
        [[content.class_names[c] for c in row] for row in stream.classes(0, 20)]
        for content, stream in zip((one, other), streams, strict=True)
    ]
    assert names[0] == names[1]


def test_names_are_compared_in_one_form_of_unicode() -> None:
    decomposed = replace(split(), class_names=[unicodedata.normalize("NFD", name) for name in NAMES])
    assert same(drawn(split()), drawn(decomposed))
    assert key(split()) == key(decomposed)


def test_images_without_names_keep_their_order() -> None:
    assert same(drawn(split()), drawn(replace(split(), image_names=None)))
    backwards = replace(split(), image_names=[f"{-i:03d}" for i in range(-25, 0)])
    assert not same(drawn(split()), drawn(backwards))


def test_an_episode_shows_images_of_its_classes() -> None:
    content = split()
    stream = EpisodeStream(content, SHAPE, "test", 0, CPU)
    episodes = stream.batch(0, 20)
    shown = (episodes.support_x * 255).round().long().flatten(1)
    class_of = np.repeat(np.arange(6), SIZES)
    np.testing.assert_array_equal(class_of[shown.numpy()], stream.classes(0, 20))


@pytest.mark.parametrize(
    "changes", [{"name": "val"}, {"seed": 1}, {"shape": EpisodeShape(3, 2, 1)}, {"shape": EpisodeShape(2, 1, 2)}]
)
def test_another_split_seed_or_shape_has_other_episodes(changes: dict[str, object]) -> None:
    assert key(split(), **changes) != key(split())  # type: ignore[arg-type]
    assert not same(drawn(split(), **changes), drawn(split()))  # type: ignore[arg-type]


def test_another_name_or_image_more_has_other_episodes() -> None:
    renamed = replace(split(), class_names=["other", *NAMES[1:]])
    moved = replace(split(), offsets=torch.tensor([0, 5, 4, *SIZES[2:]]).cumsum(0))
    for changed in (renamed, moved):
        assert key(changed) != key(split())
        assert not same(drawn(changed), drawn(split()))


def test_other_pixels_have_another_key_but_the_same_draws() -> None:
    inverted = replace(split(), images=255 - split().images)
    assert key(inverted) != key(split())
    draws = [EpisodeStream(content, SHAPE, "test", 0, CPU).classes(0, 20) for content in (split(), inverted)]
    np.testing.assert_array_equal(*draws)


def test_scaling_is_no_part_of_the_key() -> None:
    assert key(replace(split(), mean=(0.5,), std=(0.2,), groups=None)) == key(split())


def test_the_first_episode_matches_its_golden_value() -> None:
    # A change here changes every episode, and with it every result that was ever published.
    order = Order.of(split())
    assert order.names == ("Zagreb", "atlas", "b", "b@90", "Ünye", "épée")
    assert order.stream("test") == "test|481c80350ec7c3eed2d017eeff7daebdd3b668c0b2dcd403c19db0b56bfee924"
    shown = (drawn(split()).query_x[0] * 255).round().long().flatten().tolist()
    assert shown == [4, 9, 8, 0, 10, 1]
    assert key(split()) == "f5442cbb0612655d45c0170bbbff532c"


def without(content: Split, dropped: int) -> Split:
    """Return the split without one of its classes."""
    bounds = content.offsets.tolist()
    kept = [c for c in range(len(content.class_names)) if c != dropped]
    images = [i for c in kept for i in range(bounds[c], bounds[c + 1])]
    assert content.groups is not None
    assert content.image_names is not None
    return Split(
        content.images[images],
        torch.tensor([0, *(bounds[c + 1] - bounds[c] for c in kept)]).cumsum(0),
        [content.class_names[c] for c in kept],
        groups=[content.groups[c] for c in kept],
        image_names=[content.image_names[i] for i in images],
    )


def test_a_class_with_too_few_images_is_not_drawn() -> None:
    shape = EpisodeShape(3, 1, 3)
    stream = EpisodeStream(split(), shape, "test", 0, CPU)
    assert set(stream.classes(0, 200).flatten()) == {0, 1, 3, 4}, "classes 2 and 5 have three images"
    assert same(drawn(split(), shape=shape), drawn(without(without(split(), 5), 2), shape=shape))
    assert set(stream.groups(0, 200).flatten()) == {9, 8, 6, 5}
    ungrouped = EpisodeStream(replace(split(), groups=None), shape, "test", 0, CPU)
    assert set(ungrouped.groups(0, 200).flatten()) == {0, 1, 2, 3}
