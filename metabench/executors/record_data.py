"""What a record says about the data of its cell."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from metabench.api import Split
from metabench.data.order import episodes_key
from metabench.data.pretraining import count_shared, remarks_on_pretraining
from metabench.engine.outcome import Outcome
from metabench.engine.subsets import splits_of
from metabench.errors import CellFailed
from metabench.executors.loading import LoadedDataset
from metabench.planning.cells import Cell
from metabench.planning.fitting import classes_left_out, episodes_by_split
from metabench.records.record import Data


def data_of(cell: Cell, datasets: Mapping[str, LoadedDataset], outcome: Outcome | None) -> Data:
    """Return what a record says about the data of a cell."""
    data, trained_on = datasets[cell.dataset.label], datasets[cell.training.dataset.label]
    splits = {label: dataset.splits for label, dataset in datasets.items()}
    with suppress(CellFailed):  # a limit of more than there is, which has failed the cell
        splits[cell.training.dataset.label] = splits_of(cell.training, trained_on.splits)
    drawn = {
        name: (split, shape)
        for name, (choice, shape) in episodes_by_split(cell).items()
        if isinstance(split := splits[choice.label][name], Split)
    }
    left_out = {name: classes_left_out(split, shape) for name, (split, shape) in drawn.items()}
    left_out = {name: count for name, count in left_out.items() if count}
    return Data(
        episodes=episodes_key(data.splits["test"], "test", cell.shape, cell.test.seed, data.test_content),
        raw_files=data.raw_files,
        overlapping=data.findings.overlapping,
        duplicates=dict(data.findings.duplicates),
        left_out=left_out,
        trained_on=trained_on.fingerprint if cell.is_cross_domain else "",
        remarks=[
            *data.remarks,
            *data.findings.remarks(),
            *_seen_before(cell, datasets, outcome),
            *(
                f"{count} of {drawn[name][0].size.classes} classes of {name} have fewer than "
                f"{drawn[name][1].per_class} images, and are not drawn"
                for name, count in left_out.items()
            ),
        ],
    )


def _seen_before(cell: Cell, datasets: Mapping[str, LoadedDataset], outcome: Outcome | None) -> list[str]:
    """Return remarks on test images that the tested weights may have seen."""
    data, trained_on = datasets[cell.dataset.label], datasets[cell.training.dataset.label]
    train, test = trained_on.splits["train"], data.splits["test"]
    if outcome is None or not isinstance(test, Split) or not isinstance(train, Split):
        return []
    lines = remarks_on_pretraining(outcome.pretrained_on, data.found_in, test.class_names)
    if cell.training.schedule is None or not cell.is_cross_domain or not (data.hashes and trained_on.hashes):
        return lines
    if shared := count_shared(train.rows, trained_on.hashes, test.rows, data.hashes):
        label = cell.training.dataset.label
        lines.append(f"{shared} of {len(test.rows)} test images are also training images of {label}")
    return lines
