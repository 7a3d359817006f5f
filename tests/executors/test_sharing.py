"""Several processes share an output directory, as threads that take turns and as processes that are killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from counting import Counting, Silent, finished_record
from metabench.errors import StoreError
from metabench.executors import heartbeat
from metabench.executors.job_files import Claim
from metabench.executors.job_folder import JobFolder
from metabench.executors.members import Members, Seat, joined
from metabench.executors.sharing import Sharing
from metabench.records.store import Store

SETTINGS = {"the suite": "counted"}
#: The number of a process that there is not.
NOBODY = 2**22 + 1

Enter = Callable[[], Sharing]


@pytest.fixture
def enter(tmp_path: Path) -> Iterator[Enter]:
    """Return a function that enters the session of a directory, as one more process that looks every time."""
    (tmp_path / "kept").touch()
    looks = count(step=10.0)
    with ExitStack() as stack:

        def one_more() -> Sharing:
            members = stack.enter_context(joined(tmp_path, SETTINGS, lambda: None))
            return Sharing(members, Store(tmp_path), Silent(), clock=lambda: next(looks))

        yield one_more


def kill(members: Members) -> None:
    """Make a member look as if its process had been killed."""
    claim = members.own.claim()
    assert claim is not None
    (members.own.path / "claim").write_text(
        claim.model_copy(update={"pid": NOBODY}).model_dump_json(), encoding="utf-8"
    )


def test_a_job_is_taken_by_one_process_only(enter: Enter) -> None:
    first, second = enter(), enter()
    job = Counting.of("a", tests=2)
    assert first.take(job) == job
    assert second.take(job) is None
    assert second.take(Counting.of("b")) is not None


def test_a_job_that_was_given_back_is_taken_with_the_cells_that_are_left(enter: Enter) -> None:
    first, second = enter(), enter()
    job = Counting.of("a", tests=3)
    assert first.take(job) is not None
    first.tell(job.cells[0].id)
    first.give_back("a")
    taken = second.take(job)
    assert taken is not None
    assert [cell.id for cell in taken.cells] == [cell.id for cell in job.cells[1:]]


def test_a_job_that_is_finished_is_not_taken(enter: Enter) -> None:
    first, second = enter(), enter()
    job = Counting.of("a")
    assert first.take(job) is not None
    first.tell(job.cells[0].id)
    first.end(job, "")
    assert second.take(job) is None
    assert second.remaining([job]) == []


def test_weights_that_others_could_not_train_are_not_tried_again(enter: Enter) -> None:
    first, second = enter(), enter()
    weights, tests = Counting.of("weights", tests=0), Counting.of("tests", after=["weights"])
    assert first.take(weights) is not None
    first.end(weights, "it diverged")
    assert second.take(weights) is None
    assert second.problems == {"weights": "it diverged"}
    assert second.remaining([weights, tests]) == [tests]


def test_the_job_of_a_process_that_was_killed_is_taken_over_once(enter: Enter) -> None:
    dead, second, third = enter(), enter(), enter()
    job = Counting.of("a")
    assert dead.take(job) is not None
    kill(dead.members)
    assert second.take(job) is not None
    assert third.take(job) is None
    assert not dead.has("a")


def test_a_worker_that_outlives_its_killed_command_keeps_its_job(enter: Enter, tmp_path: Path) -> None:
    dead, second = enter(), enter()
    job = Counting.of("a")
    assert dead.take(job) is not None
    folder = JobFolder.of(tmp_path, "a")
    folder.path.mkdir(parents=True)
    worker = Claim.of_this_process(1)
    assert folder.take(worker)
    kill(dead.members)
    assert second.take(job) is None
    folder.release(worker)
    assert second.take(job) is not None


@pytest.mark.parametrize(("host", "patience"), [("here", 60.0), ("elsewhere", 300.0)])
def test_a_silent_process_is_lost_by_the_clock_of_who_watches(
    enter: Enter, host: str, patience: float, tmp_path: Path
) -> None:
    seat, now = Seat(tmp_path / "sharing" / "members" / "silent"), [0.0]
    claim = Claim.of_this_process(0)
    seat.write(claim if host == "here" else claim.model_copy(update={"host": "another"}), SETTINGS)
    observer = heartbeat.Observer(seat, clock=lambda: now[0])
    observer.look()
    while now[0] < patience:
        assert not observer.is_lost
        now[0] += 4.0
        observer.look()
    now[0] += 4.0
    observer.look()
    assert observer.is_lost
    seat.beat(1)
    observer.look()
    assert not observer.is_lost


def test_records_of_others_are_seen_once(enter: Enter, tmp_path: Path) -> None:
    first, second = enter(), enter()
    record = finished_record("0" * 16)
    with first.members.writing():
        assert first.recorded(record) is None
        Store(tmp_path).write(record)
        first.tell(record.cell)
    assert second.look() == [record]
    assert second.look() == []
    assert first.look() == []
    with second.members.writing():
        assert second.recorded(record.model_copy(update={"finished": "2026-02-02"})) == record


def test_a_record_whose_maker_was_killed_before_it_told_is_not_made_again(enter: Enter, tmp_path: Path) -> None:
    record = finished_record("0" * 16)
    Store(tmp_path).write(record.model_copy(update={"looks": 1}))
    second = enter()
    with second.members.writing():
        assert second.recorded(record) is not None
        assert second.recorded(record.model_copy(update={"finished": "2026-02-02"})) is None


def test_a_record_that_was_not_told_is_told_by_who_takes_its_job_over(enter: Enter, tmp_path: Path) -> None:
    cell = "0" * 16
    Store(tmp_path).write(finished_record(cell, looks=1))
    second, third = enter(), enter()
    second.mend([cell, "1" * 16])
    assert list(Store(tmp_path).looks().values()) == [1]
    assert [record.cell for record in third.look()] == [cell]
    second.mend([cell])
    assert third.look() == []


def test_other_settings_are_refused_as_long_as_somebody_shares(enter: Enter, tmp_path: Path) -> None:
    first = enter()
    others = {"the suite": "another"}
    refused = pytest.raises(StoreError, match=r"with other settings \(the suite is another here, counted there\)")
    with refused, joined(tmp_path, others, lambda: None):
        pass
    kill(first.members)
    with joined(tmp_path, others, lambda: None) as members:
        assert [seat.nonce for seat in members.seats()] == [members.own.nonce], "the killed session has ended"


def test_who_has_a_directory_alone_and_who_share_it_keep_one_another_out(enter: Enter, tmp_path: Path) -> None:
    with Store(tmp_path).locked(), pytest.raises(StoreError, match="another metabench run without --share is writing"):
        enter()
    enter()
    with pytest.raises(StoreError, match="another metabench run is writing"), Store(tmp_path).locked():
        pass


def test_the_first_begins_and_the_last_one_tidies_up(tmp_path: Path) -> None:
    begun: list[int] = []
    with joined(tmp_path / "out", SETTINGS, lambda: begun.append(1)):
        with joined(tmp_path / "out", SETTINGS, lambda: begun.append(2)):
            pass
        assert (tmp_path / "out" / "sharing").exists()
    assert begun == [1, 1], "the first and the last one, which are the same process here"
    assert not (tmp_path / "out").exists(), "nothing was written"


def test_a_process_that_was_taken_for_dead_ends_with_a_message(enter: Enter) -> None:
    sharing = enter()
    sharing.members.expel()
    with pytest.raises(StoreError, match="have taken this one for dead"):
        sharing.look()
