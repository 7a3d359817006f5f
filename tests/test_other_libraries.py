"""The blocks of docs/other-libraries.md run, and are MAML."""

from __future__ import annotations

import importlib
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from metabench.api import Algorithm, Classification, Episodes, Setup
from metabench.testing import SmallNetwork
from metabench_plugins.algorithms.maml import MAML, MAMLConfig

PAGE = Path(__file__).parent.parent / "docs" / "other-libraries.md"
UPDATES = 5
#: The section of each block, its class, and the package that it needs.
BLOCKS = {
    "torch.func": ("FuncMAML", "torch.func"),
    "TorchOpt": ("TorchOptMAML", "torchopt"),
    "higher": ("HigherMAML", "higher"),
    "learn2learn": ("LearnMAML", "learn2learn"),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def block(section: str) -> str:
    """Return the code of a section."""
    (code,) = re.findall(rf"^## {re.escape(section)}\n\n```python\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)
    return str(code)


def built(cls: type[Algorithm], **params: Any) -> Algorithm:
    torch.manual_seed(0)
    return cls(MAMLConfig.model_validate(params), Setup(SmallNetwork(), 3, 3, UPDATES)).double()


def episodes(number: int) -> Episodes:
    generator = torch.Generator().manual_seed(number)
    support, query = torch.rand(2, 2, 6, 1, 20, 20, generator=generator, dtype=torch.float64)
    labels = torch.arange(3).repeat(2, 2)
    return Episodes(support, labels, query, labels, Classification(3))


def results(algorithm: Algorithm) -> tuple[list[float], torch.Tensor]:
    """Return the losses of the first updates, and the scores of an episode after them."""
    losses = [float(algorithm.train_step(episodes(number))["loss"]) for number in range(UPDATES)]
    algorithm.eval()
    episode = next(iter(episodes(UPDATES)))
    with torch.no_grad():
        return losses, algorithm.answer(algorithm.adapt(episode.support), episode.query_x)


def test_every_block_is_tested() -> None:
    assert re.findall(r"^## (.*)$", PAGE.read_text("utf-8"), re.M) == list(BLOCKS)


@pytest.mark.parametrize("section", BLOCKS)
def test_a_block_is_the_built_in_maml(section: str) -> None:
    name, package = BLOCKS[section]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that nobody maintains
        try:
            importlib.import_module(package)
        except ImportError as error:
            pytest.skip(f"{package} cannot be imported ({error}); {PAGE.name} says how to install it")
        documented: dict[str, Any] = {"__name__": "documented"}
        exec(block(section), documented)
        losses, scores = results(built(documented[name]))
    expected = results(built(MAML, inner_lr=0.4, inner_steps=1, test_inner_steps=1))
    assert losses == pytest.approx(expected[0], abs=1e-6)
    torch.testing.assert_close(scores, expected[1], rtol=0, atol=1e-6)
