"""`metabench.evaluate`: test a network or an algorithm of one's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imports torch
    from torch import nn

    from metabench.api import Algorithm
    from metabench.exchange.episode_sets import EpisodeSet
    from metabench.interface.results import Run


def evaluate(
    learner: nn.Module,
    episodes: EpisodeSet,
    *,
    head: str | type[Algorithm] | None = None,
    params: Mapping[str, Any] | None = None,
    name: str | None = None,
    backbone: str | None = None,
    pretrained_on: str = "",
    seed: int = 0,
    device: str = "auto",
    output: str | os.PathLike[str] | None = None,
) -> Run:
    """Test a learner with the harness's own loop, metrics, intervals and controls.

    Nothing is trained, and the learner stays as it is: a copy is tested.

    Args:
        learner: a `torch.nn.Module` that maps [n, C, H, W] images to [n, D] features, of each image on its own; or a
            `metabench.api.Algorithm`.
        episodes: the test episodes, `metabench.episodes`.
        head: the algorithm that answers from the features of a module: a name (``metabench list algorithms``), or a
            class.
        params: parameters of the head.
        name: label in tables; None means that of the class, and of the head.
        backbone: label of the backbone in tables; that of a run lets the learner stand in the run's table. None means
            the name of the class.
        pretrained_on: the images that the weights have seen, e.g. ``"ImageNet-1k"``.
        seed: label of the training seed, where several trainings of one learner are evaluated.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        output: directory for the record; None keeps it as long as the result lives.

    Returns:
        The result, a run of one cell; ``load_run(run, result)`` shows it beside a run.

    Raises:
        CellFailed: a score is not finite, or the answers depend on more than their episode.
        KeyboardInterrupt: it was interrupted.
        MetabenchError: the head is missing or unknown, or the episodes are no test episodes.
        Unfit: the learner cannot take the images, or answer in these episodes.

    Example:
        >>> import metabench, torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 5, stride=4), torch.nn.ReLU(), torch.nn.Flatten())
        >>> episodes = metabench.episodes("glyphs", way=5, shot=1, count=50)
        >>> result = metabench.evaluate(network, episodes, head="nearest-mean", name="own", backbone="conv4")
        >>> bool(result.cells["accuracy"].item() > 0.2)
        True
        >>> both = metabench.load_run("runs/example/default", result)
        >>> sorted(row.name for row in both.tables[0].rows)
        ['nearest-mean', 'own', 'protonet']
    """
    from metabench.cli.console import make_console
    from metabench.contracts import Interrupted
    from metabench.errors import UsageError
    from metabench.exchange.evaluated import evaluated
    from metabench.interface.results import Run
    from metabench.interface.temporary import TemporaryFolder
    from metabench.records.store import Store

    if episodes.split != "test":
        raise UsageError(f"the episodes are those of {episodes.split}: evaluate test episodes")
    temporary = [TemporaryFolder()] if output is None else []
    store = Store(temporary[0].path if output is None else Path(output))
    store.check_no_run()
    with make_console() as console, console.watching("evaluate") as watcher:
        try:
            record, results, picture = evaluated(
                learner, episodes, head, params or {}, name, backbone, pretrained_on, seed, device, watcher
            )
        except Interrupted:
            raise KeyboardInterrupt from None
    with store.locked():
        store.write(record, results, picture)
    return Run([store.path], temporary=temporary)
