from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metabench.planning.fitting import datasets_of
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.registry.manager import PluginManager

if TYPE_CHECKING:
    from metabench.api import Dataset
    from metabench.executors.loading import LoadedDataset
    from metabench.records.record import Record
    from tiny import Watching


@pytest.fixture
def run_suite(
    tmp_path: Path, data: LoadedDataset, everything: PluginManager, suite_file: Callable[[str], SuiteFile]
) -> Callable[..., list[Record]]:
    """Return a function that runs a suite on the tiny dataset, in this process, into one store."""
    from metabench.contracts import RunOptions
    from metabench.executors.driver import run_work
    from metabench.executors.few_shot import FewShotWork
    from metabench.executors.loading import LoadedDataset
    from metabench.executors.origin import kept_records
    from metabench.records.store import Store
    from tiny import CPU, Watching

    def loaded(dataset: Dataset) -> LoadedDataset:
        pack = dataset.pack(None, lambda done, total, what: None)
        return LoadedDataset(dataset.split(pack), pack.fingerprint)

    def start(
        text: str,
        watcher: Watching | None = None,
        output: str = "out",
        only: Sequence[str] = (),
        shots: Sequence[int] = (),
        **flags: bool,
    ) -> list[Record]:
        suite, file = resolve(suite_file(text))
        plan = make_plan(suite, file, everything)
        cells = [cell for cell in plan if not only or cell.algorithm.label in only]
        cells = [cell for cell in cells if not shots or cell.shape.shot in shots]
        datasets = {
            label: data if choice.name == "blots" else loaded(everything.build_dataset(choice.name, choice.params))
            for label, choice in datasets_of(plan).items()
        }
        fingerprints = {label: dataset.fingerprint for label, dataset in datasets.items()}
        store, options = Store(tmp_path / output), RunOptions(**flags, in_process=True)
        earlier = {} if options.fresh else store.records_by_name()
        kept, growing = kept_records(cells, earlier, fingerprints, CPU, everything, store)
        watcher = watcher or Watching()
        with store.locked():
            work = FewShotWork(
                suite, plan, cells, fingerprints, CPU, everything, store, kept, growing, options, datasets
            )
            return run_work(work, everything, store, watcher, options)

    return start
