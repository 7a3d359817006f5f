"""The files of a job on a node that does not see the output directory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import pytest
from metabench_ray.mirror import Mirror, files_to_send, sees, write_files

from metabench.contracts import Job


class Needing:
    key = "training"
    after = ("teacher",)


def tree(output: Path) -> dict[str, str]:
    """Return the files of an output directory."""
    paths = sorted(path for path in output.rglob("*") if path.is_file())
    return {path.relative_to(output).as_posix(): path.read_text(encoding="ascii") for path in paths}


def fill(output: Path, **files: str) -> None:
    for name, content in files.items():
        path = output / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="ascii")


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """Return the output directory of a driver, with files of a job, of its teacher, and of others."""
    output = tmp_path / "driver" / "out"
    fill(output, jobs__training__job="work", jobs__training__claim="a worker", checkpoints__training="old")
    (output / "checkpoints" / "training").rename(output / "checkpoints" / "training.pt")
    for key in ("training", "teacher", "stranger"):
        fill(output, **{f"weights__{key}-last.safetensors": f"weights of {key}"})
        (output / "weights" / f"{key}.json").write_text("{}", encoding="ascii")
    return output


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Return the output directory as a node has it."""
    return tmp_path / "node" / "out"


def mirrored(driver: Path, node: Path) -> Mirror:
    files = files_to_send(driver / "jobs" / "training", cast(Job, Needing()))
    return Mirror(node / "jobs" / "training", files)


def test_a_job_comes_with_its_checkpoint_and_the_weights_that_it_needs(driver: Path, node: Path) -> None:
    mirrored(driver, node)
    expected = {name: text for name, text in tree(driver).items() if "stranger" not in name and "claim" not in name}
    assert tree(node) == {**expected, "jobs/training/mirrored": ""}


def test_what_a_worker_changes_goes_back_once_results_last(driver: Path, node: Path) -> None:
    mirror = mirrored(driver, node)
    assert mirror.news() == {}
    fill(node, jobs__training__results__a="{}", jobs__training__progress="half", jobs__training__heartbeat="1")
    (node / "jobs" / "training" / "results" / "a").rename(node / "jobs" / "training" / "results" / "a.1.json")
    (node / "jobs" / "training" / "results" / "a.1.npz").write_text("episodes", encoding="ascii")
    news = mirror.news()
    assert list(news)[-1] == "jobs/training/results/a.1.json"
    assert set(news) == {f"jobs/training/{name}" for name in ("progress", "results/a.1.npz", "results/a.1.json")}
    assert mirror.news() == {}
    write_files(driver, news)
    assert tree(driver)["jobs/training/results/a.1.npz"] == "episodes"


def test_a_new_checkpoint_goes_back_at_the_end_and_a_finished_one_is_deleted(driver: Path, node: Path) -> None:
    mirror = mirrored(driver, node)
    (node / "checkpoints" / "training.pt").write_text("newer", encoding="ascii")
    assert mirror.news() == {}, "checkpoints are sent less often"
    assert mirror.last_news() == {"checkpoints/training.pt": b"newer"}
    (node / "checkpoints" / "training.pt").unlink()
    write_files(driver, mirror.last_news())
    assert "checkpoints/training.pt" not in tree(driver)


def test_a_node_keeps_no_file_of_the_job(driver: Path, node: Path) -> None:
    mirrored(driver, node).remove()
    assert set(tree(node)) == {"weights/teacher-last.safetensors", "weights/teacher.json"}


def test_what_a_killed_attempt_has_left_on_a_node_is_not_used(driver: Path, node: Path) -> None:
    mirrored(driver, node)
    fill(node, jobs__training__results__b="of an earlier attempt")
    (driver / "checkpoints" / "training.pt").unlink()  # by --fresh
    mirrored(driver, node)
    assert not {"jobs/training/results/b", "checkpoints/training.pt"} & set(tree(node))


def test_a_node_sees_the_output_directory_by_a_token(driver: Path, node: Path) -> None:
    folder = driver / "jobs" / "training"
    assert not sees(node / "jobs" / "training", "token.1")
    late = threading.Timer(0.2, (folder / "token.1").touch)  # as a cache of NFS may show it
    late.start()
    assert sees(folder, "token.1")
    late.join()


def test_a_copy_is_not_the_folder_of_the_driver(driver: Path, node: Path) -> None:
    mirrored(driver, node)
    assert not sees(node / "jobs" / "training", "token.1")
