"""Each check of the kit, against an algorithm that breaks just that rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from kit import failures
from metabench.cli import cli
from metabench.conformance.algorithms import CHECKS, LEARNT, train_until_learnt
from metabench.conformance.checks import NotConforming, run
from metabench.conformance.subjects import Subject
from metabench.testing import AlgorithmChecks

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD = """
import torch
from pydantic import ConfigDict
from metabench.api import AlgorithmConfig
from metabench_plugins.algorithms.protonet import ProtoNet
from metabench_plugins.algorithms.maml import MAML
"""

#: The check, what is wrong, and what the message says.
BREAKING = {
    "parameters": (
        """
        class Loose(AlgorithmConfig):
            model_config = ConfigDict(extra="ignore")
        class Broken(ProtoNet):
            Config = Loose
        """,
        "takes a parameter that it does not know",
    ),
    "batchings": (
        """
        class Broken(ProtoNet):
            def adapt(self, support):
                if int(support.y.max()) >= support.way:
                    raise ValueError("a label beyond the way")
                return super().adapt(support)
        """,
        "does not work for several episodes at once",
    ),
    "seed": (
        """
        class Broken(ProtoNet):
            entropy = torch.Generator()
            def train_step(self, episodes):
                metrics = super().train_step(episodes)
                with torch.no_grad():
                    for weight in self.parameters():
                        weight += 1e-3 * torch.randn(weight.shape, generator=self.entropy)
                return metrics
        """,
        "two trainings from one seed differ",
    ),
    "resume": (
        """
        class Broken(ProtoNet):
            def training_state(self):
                return {}
            def load_training_state(self, state):
                pass
        """,
        "training_state()",
    ),
    "prediction changes nothing": (
        """
        class Broken(ProtoNet):
            def answer(self, state, query):
                if not self.training:
                    self.backbone.first.bias += 1e-8
                return super().answer(state, query)
        """,
        "adapt or answer changed its parameters",
    ),
    "prepare": (
        """
        class Broken(ProtoNet):
            def prepare(self, train):
                with torch.no_grad():
                    self.backbone.first.bias += 0.01 * sum(len(images) for images in train) / 384
        """,
        "prepare changed its parameters",
    ),
    "batches": (
        """
        class Broken(ProtoNet):
            earlier = 0
            def answer(self, state, query):
                scores = super().answer(state, query)
                if self.training:
                    return scores
                earlier, self.earlier = self.earlier, float(scores.mean())
                return scores * (1 + earlier)
        """,
        "with the batch that an episode is in",
    ),
    "asked twice": (
        """
        class Broken(ProtoNet):
            def answer(self, prototypes, query):
                scores = super().answer(prototypes, query)
                if not self.training:
                    prototypes *= 1.5
                return scores
        """,
        "the same state answers the same queries otherwise after other questions",
    ),
    "asked in halves": (
        """
        class Broken(ProtoNet):
            def answer(self, prototypes, query):
                return super().answer(prototypes, query - query.mean(dim=0, keepdim=True))
        """,
        "when the queries are asked in two halves",
    ),
    "frozen": (
        """
        class Broken(ProtoNet):
            def train_step(self, episodes):
                with torch.no_grad():
                    for weight in self.backbone.parameters():
                        weight *= 0.99
                return {"loss": torch.zeros(())}
        """,
        "it changes a frozen backbone: train and adapt metabench.api.trained_weights",
    ),
    "labels": (
        """
        class Broken(ProtoNet):
            def __init__(self, config, setup):
                super().__init__(config, setup)
                self.answers = {}
            def answer(self, state, query):
                scores = super().answer(state, query)
                if self.training:
                    return scores
                return torch.tensor(self.answers.setdefault(query.numpy().tobytes(), scores.tolist()))
        """,
        "with shuffled support labels the accuracy is",
    ),
    "shapes": (
        """
        class Broken(ProtoNet):
            def answer(self, state, query):
                scores = super().answer(state, query)
                return scores if self.training else scores[..., :5]
        """,
        "scores [queries, classes] = (21, 7)",
    ),
    "uneven shots": (
        """
        class Broken(ProtoNet):
            def adapt(self, support):
                if len(support.y) % support.way:
                    raise ValueError("classes need as many images")
                return super().adapt(support)
        """,
        "classes need as many images",
    ),
    "scores": (
        """
        class Broken(ProtoNet):
            def answer(self, state, query):
                scores = super().answer(state, query)
                return scores if self.training else scores.softmax(dim=-1)
        """,
        "the scores of each query are probabilities",
    ),
    "queries": (
        """
        class Broken(ProtoNet):
            def answer(self, state, query):
                scores = super().answer(state, query)
                return scores - scores.mean(dim=0, keepdim=True)
        """,
        "when the other queries are exchanged",
    ),
    "relabelling": (
        """
        class Broken(ProtoNet):
            def adapt(self, support):
                # Believes that the support set always comes class by class.
                return super().adapt(support), 1 if int(support.y[0]) == 0 else -1
            def answer(self, state, query):
                prototypes, sign = state
                return sign * super().answer(prototypes, query)
        """,
        "with one order of the labels",
    ),
    "memory": (
        """
        class Broken(ProtoNet):
            kept = []
            def answer(self, state, query):
                self.kept.append(super().answer(state, query))
                return self.kept[-1]
        """,
        "tensors more are alive",
    ),
    "learning": (
        """
        class Broken(ProtoNet):
            def answer(self, state, query):
                scores = super().answer(state, query)
                if self.training:
                    return scores
                return torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))
        """,
        "where chance is 20 %",
    ),
}


#: Rules that a class cannot keep if it breaks another.
ALSO_BROKEN = {
    "shapes": {"uneven shots"},
    "seed": {"resume"},  # what no seed determines, no checkpoint brings back
    "labels": {"relabelling", "batchings"},  # the answers are remembered for other labels, too
    "prediction changes nothing": {"asked twice"},
    "asked twice": {"asked in halves"},
    "batches": {"asked twice", "asked in halves", "queries", "batchings", "learning"},
    "asked in halves": {"queries"},
    "queries": {"asked in halves"},
    "relabelling": {"batchings"},
    "learning": {"asked in halves"},
}


def dedented(source: str) -> str:
    lines = source.strip("\n").splitlines()
    return "\n".join(line[8:] for line in lines) + "\n"


@pytest.fixture
def subject(tmp_path: Path) -> Callable[..., Subject]:
    """Return a function that makes a subject of a class in a file."""

    def make(source: str, name: str = "Broken", **changes: Any) -> Subject:
        path = tmp_path / "broken.py"
        path.write_text(HEAD + dedented(source), encoding="utf-8")
        return Subject(f"{path}:{name}", **changes)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("rule", BREAKING)
def test_a_broken_rule_is_seen_by_its_check_and_by_no_other(rule: str, subject: Callable[..., Subject]) -> None:
    source, message = BREAKING[rule]
    found = failures(CHECKS, subject(source))
    assert message in found.pop(rule)
    assert set(found) == ALSO_BROKEN.get(rule, set()), found


def test_every_check_has_an_algorithm_that_breaks_it() -> None:
    assert set(BREAKING) == set(CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("protonet", {}),
        ("matchingnet", {"params": {"scale": 10.0}}),
        ("siamese", {"params": {"units": 64, "lr": 3e-3}}),
        ("maml", {}),
        ("maml", {"params": {"inner_lr": 0.4}}),
        ("reptile", {"params": {"test_inner_steps": 10}}),
        ("classifier", {}),
        ("simpleshot", {}),
    ],
)
def test_the_built_ins_keep_all_rules(algorithm: str, settings: dict[str, Any]) -> None:
    assert failures(CHECKS, Subject(algorithm, **settings)) == {}


def test_scores_without_a_common_scale_are_refused(subject: Callable[..., Subject]) -> None:
    """One query in sixteen is wrong with a certainty beyond that of all right ones."""
    source = """
        class Broken(ProtoNet):
            def answer(self, state, query):
                scores = super().answer(state, query)
                unsure = (1e3 * query.mean(dim=-1, keepdim=True)).sin() > 0.98
                return scores if self.training else torch.where(unsure, -1e3 * scores, scores)
        """
    with pytest.raises(NotConforming, match="no temperature makes its scores probabilities"):
        run(CHECKS["scores"], subject(source))


def test_impossible_classes_may_score_minus_infinity(subject: Callable[..., Subject]) -> None:
    source = """
        class Broken(ProtoNet):
            def answer(self, state, query):
                scores = super().answer(state, query)
                return scores.masked_fill(scores <= scores.min(dim=-1, keepdim=True).values, -torch.inf)
        """
    for rule in ("scores", "shapes", "queries", "batches", "asked twice", "asked in halves"):
        run(CHECKS[rule], subject(source))


def test_an_algorithm_declared_transductive_may_be_transductive(subject: Callable[..., Subject]) -> None:
    source, _ = BREAKING["queries"]
    assert failures(CHECKS, subject(source, transductive=True)) == {}


def test_an_error_of_the_algorithm_is_a_broken_rule_with_its_message(subject: Callable[..., Subject]) -> None:
    source = """
        class Broken(ProtoNet):
            def episode_loss(self, episode):
                raise RuntimeError("not today")
        """
    with pytest.raises(NotConforming, match="RuntimeError: not today"):
        run(CHECKS["seed"], subject(source))


def test_a_check_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    before: Tensor = torch.get_rng_state()
    run(CHECKS["seed"], Subject("protonet"))
    assert torch.equal(before, torch.get_rng_state())


class TestThreeLines(AlgorithmChecks):
    """The kit as a plugin's author uses it."""

    algorithm = "protonet"
    params: Mapping[str, Any] = {"lr": 2e-3}


# ------------------------------------------------------------------------------------------- command line


@pytest.mark.slow
def test_the_command_lists_every_check(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["plugin", "check", "protonet"])
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == f"{len(CHECKS)} of {len(CHECKS)} checks passed"


def test_the_command_names_what_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, message = BREAKING["queries"]
    Path("broken.py").write_text(HEAD + dedented(source), encoding="utf-8")
    result = CliRunner().invoke(cli, ["plugin", "check", "./broken.py:Broken"], standalone_mode=False)
    assert result.return_value == 1
    assert "FAILED  queries: A query's scores do not depend on the other queries" in result.output
    assert message in result.output


def test_training_ends_when_the_algorithm_has_learnt() -> None:
    algorithm, accuracy = train_until_learnt(Subject("protonet"))
    assert accuracy >= LEARNT
    steps = {int(state["step"]) for state in algorithm.training_state()["optimiser"]["state"].values()}
    assert steps == {20}


@pytest.mark.parametrize("params", ["{", "[]", "3"])
def test_parameters_that_are_no_object_are_refused(params: str) -> None:
    result = CliRunner().invoke(cli, ["plugin", "check", "protonet", "--params", params])
    assert result.exit_code == 2
    assert f"--params {params}" in result.output


def test_state_that_prediction_needs_must_be_saved_with_the_weights(subject: Callable[..., Subject]) -> None:
    source = """
        class Broken(ProtoNet):
            offset = 0.0
            def train_step(self, episodes):
                self.offset += float(episodes.support_x.mean())
                return super().train_step(episodes)
            def answer(self, state, query):
                return super().answer(state, query) + (0 if self.training else self.offset)
        """
    with pytest.raises(NotConforming, match=r"answer otherwise: .*state_dict\(\)"):
        run(CHECKS["resume"], subject(source))
