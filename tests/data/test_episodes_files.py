"""Episodes of files: reading them, and their images as indices."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metabench.api import Split
from metabench.data.episodes_files import NamedEpisode, read_episodes_file, shape_of
from metabench.data.fixed_episodes import FixedEpisodes
from metabench.data.order import Order
from metabench.data.sampler import EpisodeShape
from metabench.errors import DataError

#: Two 2-way 1-shot episodes with two queries of each class.
EPISODES: list[dict[str, Any]] = [
    {"support": {"cat": ["a"], "dog": ["b"]}, "query": {"cat": ["b", "c"], "dog": ["a", "c"]}},
    {"support": {"dog": ["c"], "emu": ["a"]}, "query": {"emu": ["c", "b"], "dog": ["a", "b"]}},
]
KEY = "0123456789abcdef" * 2

Read = Callable[[str], list[NamedEpisode]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a function that writes and reads a file."""

    def written(text: str) -> list[NamedEpisode]:
        (tmp_path / "runs.json").write_text(text, encoding="utf-8")
        return read_episodes_file(tmp_path / "runs.json")[1]

    return written


@pytest.fixture
def complaint(read: Read, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that returns the error message of a file, after its folder."""

    def refused(text: str) -> str:
        with pytest.raises(DataError) as caught:
            shape_of(read(text))
        return str(caught.value).removeprefix(f"{tmp_path}/")

    return refused


def as_data(episodes: list[NamedEpisode]) -> list[dict[str, Any]]:
    return [{"support": dict(episode.support), "query": dict(episode.query)} for episode in episodes]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(EPISODES),
        json.dumps(EPISODES, indent=2),
        "\n".join(map(json.dumps, EPISODES)),
        "\n\n".join(json.dumps(episode, indent=1) for episode in EPISODES) + "\n",
    ],
)
def test_a_list_and_lines_of_json_have_the_same_episodes(read: Read, text: str) -> None:
    episodes = read(text)
    assert as_data(episodes) == EPISODES
    assert shape_of(episodes) == EpisodeShape(2, 1, 2)


def test_each_episode_has_the_line_of_its_begin(read: Read) -> None:
    first, second = map(json.dumps, EPISODES)
    assert [episode.place.rpartition(":")[2] for episode in read(f"\n[\n{first},\n\n{second}\n]\n")] == ["3", "5"]
    assert [episode.place.rpartition(":")[2] for episode in read(f"{first}\n{second}")] == ["1", "2"]


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(EPISODES), encoding="utf-8")
    found, _ = read_episodes_file(path)
    assert read_episodes_file(path, found.sha256)[0] == found
    path.write_text(json.dumps(EPISODES[:1]), encoding="utf-8")
    with pytest.raises(DataError, match=r"runs\.json has changed since the suite was planned: run the suite again"):
        read_episodes_file(path, found.sha256)


def changed(**sets: dict[str, list[str]]) -> str:
    return json.dumps({**EPISODES[0], **sets})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "runs.json has no episodes"),
        ("[]", "runs.json has no episodes"),
        ("{", "runs.json:1: not valid JSON: Expecting property name enclosed in double quotes"),
        (f"[{changed()}\n", "runs.json:2: not valid JSON: the list does not end"),
        (f"[{changed()}]\n{changed()}", "runs.json:1: not valid JSON: more follows the list"),
        ("\n[3]", 'runs.json:2: an episode is {"support": {CLASS: [IMAGE, …]}, "query": {CLASS: [IMAGE, …]}}'),
        ('{"support": {}}', "runs.json:1: an episode is"),
        (changed(support={"cat": ["a"]}), "runs.json:1: an episode needs at least two classes"),
        (changed(query={"cat": ["b"]}), "runs.json:1: class 'dog' has no queries"),
        (
            changed(query={"cat": ["b"], "dog": ["a"], "emu": ["a"]}),
            "runs.json:1: class 'emu' has no support images",
        ),
        (
            changed(query={"cat": ["a", "b"], "dog": ["a", "c"]}),
            "runs.json:1: the image 'a' of class 'cat' is in support and query: remove one",
        ),
        (
            changed(query={"cat": ["b", "b"], "dog": ["a", "c"]}),
            "runs.json:1: the image 'b' of class 'cat' is in one set twice: remove one",
        ),
        (
            changed(support={"cat": ["a"], "dog": []}),
            "runs.json:1: class 'dog' needs a list of at least one image name as its support",
        ),
        (
            changed() + '\n{"support": {"cat": ["a"], "cat": ["b"]}, "query": {}}',
            "runs.json:2: 'cat' is given twice in one episode: remove one",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(complaint: Callable[[str], str], text: str, message: str) -> None:
    assert complaint(text).startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        changed(support={"cat": ["a"], "dog": ["b", "d"]}),
        changed(query={"cat": ["b"], "dog": ["a", "c"]}),
        changed() + changed(query={"cat": ["b"], "dog": ["a"]}),
        changed() + changed(support={"cat": ["d", "a"], "dog": ["b", "d"]}),
        changed() + '{"support": {"a": ["1"], "b": ["1"], "c": ["1"]}, "query": {"a": ["2"], "b": ["2"], "c": ["2"]}}',
    ],
)
def test_episodes_of_several_shapes_vary(read: Read, text: str) -> None:
    assert shape_of(read(text)).varies


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the episodes of .*none\.json: No such file or directory"):
        read_episodes_file(tmp_path / "none.json")


# ------------------------------------------------------------------------------- the runs of Omniglot's authors

LINES = {
    "run01": "run01/test/item01.png run01/training/class02.png\nrun01/test/item02.png run01/training/class01.png\n",
    "run02": "run02/test/item01.png run02/training/class01.png\nrun02/test/item02.png run02/training/class02.png\n",
}


@pytest.mark.parametrize("packed", [False, True])
def test_the_runs_of_the_authors_of_omniglot_are_episodes(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("all_runs.zip" if packed else "all_runs")
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            for run in sorted(LINES, reverse=True):
                archive.writestr(f"all_runs/{run}/class_labels.txt", LINES[run])
            archive.writestr("__MACOSX/run01/class_labels.txt", "x")
    else:
        for run, lines in LINES.items():
            (path / run).mkdir(parents=True)
            (path / run / "class_labels.txt").write_text(lines, encoding="utf-8")
    _, episodes = read_episodes_file(path)
    assert shape_of(episodes) == EpisodeShape(2, 1, 1)
    assert as_data(episodes)[0] == {
        "support": {
            "run01/training/class02": ["run01/training/class02.png"],
            "run01/training/class01": ["run01/training/class01.png"],
        },
        "query": {
            "run01/training/class02": ["run01/test/item01.png"],
            "run01/training/class01": ["run01/test/item02.png"],
        },
    }
    assert [Path(episode.place).parent.name for episode in episodes] == ["run01", "run02"]


def test_a_line_of_a_run_has_two_names(tmp_path: Path) -> None:
    (tmp_path / "run01").mkdir()
    (tmp_path / "run01" / "class_labels.txt").write_text("\na b\nc\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"run01/class_labels\.txt:3: a line has two names"):
        read_episodes_file(tmp_path)


def test_a_folder_without_runs_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no episodes: no class_labels\.txt is in it"):
        read_episodes_file(tmp_path)


# ---------------------------------------------------------------------------------------------- indices


def split(named: bool = True) -> Split:
    """Return classes of three images, whose values are 10 · class + image."""
    images = torch.tensor([10 * c + i for c in range(4) for i in range(3)], dtype=torch.uint8)
    return Split(
        images.reshape(-1, 1, 1, 1),
        torch.arange(5) * 3,
        ["gnu", "emu", "dog", "cat"],
        image_names=list("cab") * 4 if named else None,
    )


def fixed(text: str, read: Read, named: bool = True) -> tuple[FixedEpisodes, Order, Split]:
    found = split(named)
    order = Order.of(found)
    return FixedEpisodes(read(text), found, order, KEY), order, found


def test_indices_point_to_the_named_images(read: Read) -> None:
    sampler, order, found = fixed(json.dumps(EPISODES), read)
    drawn = sampler.draw(0, 2)
    for i, episode in enumerate(EPISODES):
        names = [found.class_names[order.classes[c]] for c in drawn.classes[i]]
        assert names == list(episode["support"])
        for kind, indices, labels in (
            ("support", drawn.support, drawn.support_labels),
            ("query", drawn.query, drawn.query_labels),
        ):
            images = order.images[indices[i]]
            members: dict[str, set[str]] = {name: set() for name in names}
            for image, label in zip(images, labels[i], strict=True):
                assert found.class_names[image // 3] == names[label]
                members[names[label]].add(found.image_names[image])  # type: ignore[index]
            assert members == {name: set(images) for name, images in episode[kind].items()}


def test_guessing_is_as_good_as_the_classes_allow(read: Read) -> None:
    uneven = {"support": {"cat": ["a", "b"], "dog": ["a"]}, "query": {"cat": ["c"], "dog": ["b", "c"]}}
    three = {
        "support": {"cat": ["a"], "dog": ["a"], "emu": ["a"]},
        "query": {"cat": ["b"], "dog": ["b"], "emu": ["b", "c"]},
    }
    sampler, _, _ = fixed("\n".join(map(json.dumps, [EPISODES[0], uneven, three])), read)
    assert sampler.chances(0, 4).tolist() == pytest.approx([1 / 2, 2 / 3, 1 / 3, 1 / 2])
    assert [sampler.draw(i, 1).support_labels[0].tolist() for i in range(3)] == [[0, 1], [0, 0, 1], [0, 1, 2]]


def test_numbers_beyond_the_last_episode_begin_again(read: Read) -> None:
    sampler, _, _ = fixed(json.dumps(EPISODES), read)
    drawn, again = sampler.draw(0, 2), sampler.draw(3, 5)
    assert again.query.tolist() == [drawn.query[i % 2].tolist() for i in range(3, 8)]


def test_a_query_says_nothing_about_its_label_by_its_place(read: Read) -> None:
    sampler, _, _ = fixed("\n".join([json.dumps(EPISODES[0])] * 2000), read)
    share = (sampler.draw(0, 2000).query_labels == 0).mean(axis=0)
    assert np.abs(share - 0.5).max() < 5 * 0.5 / 2000**0.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("emu", "emus", r"runs\.json:2: the test split has no class 'emus' \(did you mean 'emu'\?\)"),
        ('["b", "c"]', '["b", "x"]', r"runs\.json:1: class 'cat' has no image 'x'"),
    ],
)
def test_an_unknown_name_is_refused_with_its_line(read: Read, old: str, new: str, message: str) -> None:
    text = "\n".join(map(json.dumps, EPISODES)).replace(old, new)
    with pytest.raises(DataError, match=message):
        fixed(text, read)


def test_images_without_names_cannot_be_named(read: Read) -> None:
    with pytest.raises(DataError, match=r"runs\.json:1: the dataset names no images, so that a file cannot name them"):
        fixed(json.dumps(EPISODES), read, named=False)
