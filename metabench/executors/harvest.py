"""Make records of the results that an earlier driver left in the folders of jobs."""

from __future__ import annotations

from metabench.executors.going_run import end_run
from metabench.executors.job_folder import JobFolder
from metabench.records.store import Store


def harvest(store: Store) -> int:
    """Write a record of each complete result that has none; return how many there were.

    Folders of jobs whose worker has ended, and that nobody will adopt, are deleted. The directory must be locked.

    Raises:
        StoreError: the directory cannot be read or written.
    """
    count = 0
    folders = JobFolder.all(store.path)
    records = store.records_by_name() if folders else {}
    for folder in folders:
        for cell, name in folder.results().items():
            result = folder.result(name)
            if result is None or result.record.cell != cell:
                continue
            known = records.get(cell)
            if known is not None and known.finished >= result.record.finished:
                store.keep_look(known)  # its driver may have been killed before it could
                continue
            record = store.with_look(result.record) if result.has_episodes else result.record
            if result.traceback:
                store.write_text(store.traceback_name(cell), result.traceback)
            store.take(record, folder.files(name))
            store.keep_look(record)
            count += 1
        submitted, claim = folder.submitted(), folder.claim()
        adopted = submitted is not None and submitted.outlives_driver and folder.handle() is not None
        if submitted is not None and folder.ended(submitted.attempt) and set(submitted.cells) <= set(folder.results()):
            adopted = False
        if not adopted and (claim is None or claim.is_dead):
            folder.remove()
    end_run(store.path)
    return count
