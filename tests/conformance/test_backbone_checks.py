"""Each check of backbones, against a backbone that breaks just that rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from click.testing import CliRunner

from kit import failures
from metabench.cli import cli
from metabench.conformance.backbones import CHECKS, Subject
from metabench.conformance.checks import NotConforming, run
from metabench.testing import BackboneChecks

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = Path(__file__).parent / "broken_backbones.py"

#: The check, the class that fails it, and what the message says.
BROKEN = [
    ("parameters", "Loose", "takes a parameter that it does not know"),
    ("shapes", "Taciturn", "refuses images of 1×20×20 by a message that does not name their shape"),
    ("features", "Miscounting", "returns float32 [12, 72] in train mode, for images of 1×28×28, and should return"),
    ("features", "Averaging", "maps of 8×5×5 have 200 numbers, and `features` is 72"),
    ("features", "Double", "returns float64 [12, 72]"),
    ("features", "NotANumber", "not finite in eval mode, for images of 3×32×32"),
    ("features", "Grey", "(in train mode, for images of 3×32×32)"),
    ("repeatable", "Random", "two calls in eval mode return other features"),
    ("evaluation changes nothing", "Counting", "a call in eval mode changes calls"),
    ("per image", "Social", "it sets `per_image`, but features of an image move by"),
    ("support", "SecretSupport", "with the number of support images: set `needs_support`"),
    ("support", "NoneIsNone", "features with support=None are not those with support=12"),
    ("per image", "BothWords", "it sets `per_image`, but"),
    ("saving", "Forgetful", "saved and loaded give other features"),
    ("seed", "Unseeded", "two backbones of one seed differ in conv.weight"),
    ("gradients", "Detached", "no gradient reaches conv.weight, conv.bias: "),
    ("gradients", "WithoutGradient", "features have no gradient"),
    ("frozen", "Thawing", "conv.weight was frozen, and is trainable after train()"),
    ("frozen", "Drifting", "conv.weight has requires_grad=False, and changes in training"),
    ("frozen", "LooseStatistics", "it sets `frozen`, but norm.running_mean changes in train mode"),
    ("autocast", "HalfPrecision", "with autocast in bfloat16, features are bfloat16"),
    ("autocast", "Cancelling", "with autocast in bfloat16, features are"),
]


def subject(cls: str, **changes: Any) -> Subject:
    return Subject(f"{FILE}:{cls}", **changes)


@pytest.mark.parametrize(("check", "cls", "message"), BROKEN)
def test_a_broken_rule_is_seen_by_its_check_and_by_no_other(check: str, cls: str, message: str) -> None:
    found = failures(CHECKS, subject(cls))
    assert message in found.pop(check)
    assert found == {}


def test_every_check_has_a_backbone_that_breaks_it() -> None:
    assert {check for check, _, _ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize("cls", ["Sound", "Fixed", "Pixels", "OneSize"])
def test_a_sound_backbone_passes(cls: str) -> None:
    assert failures(CHECKS, subject(cls)) == {}


def test_a_backbone_of_other_image_shapes_passes_with_these() -> None:
    with pytest.raises(NotConforming, match="refuses all image shapes tried, 1×28×28, 3×32×32, 1×20×20"):
        run(CHECKS["shapes"], subject("LargeOnly"))
    assert failures(CHECKS, subject("LargeOnly", image_shapes=[(3, 84, 84)])) == {}


def test_an_exception_of_the_constructor_is_no_refusal() -> None:
    with pytest.raises(NotConforming, match=r"ZeroDivisionError: .* for images of 1×20×20"):
        run(CHECKS["shapes"], subject("Crashing"))


def test_a_gradient_that_is_not_finite_is_named() -> None:
    with pytest.raises(NotConforming, match=r"the gradient of conv\.bias is not finite"):
        run(CHECKS["gradients"], subject("SteepRoot"))


def test_a_check_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    run(CHECKS["seed"], subject("Sound"))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("downsample", ["pool", "stride"])
@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_the_built_in_keeps_all_rules_with_every_norm(norm: str, downsample: str) -> None:
    assert failures(CHECKS, Subject("conv4", {"norm": norm, "downsample": downsample})) == {}


class TestThreeLines(BackboneChecks):
    """The kit as a plugin's author uses it."""

    backbone = "conv4"
    params: ClassVar[Mapping[str, Any]] = {"channels": 4}
    image_shapes: ClassVar[Sequence[tuple[int, int, int]]] = [(1, 16, 16), (1, 8, 8)]


# ------------------------------------------------------------------------------------------- command line


def test_the_command_names_what_is_broken() -> None:
    result = CliRunner().invoke(cli, ["plugin", "check", f"{FILE}:Counting"], standalone_mode=False)
    assert result.return_value == 1
    assert "FAILED  evaluation changes nothing: In eval mode, no parameter and no buffer changes." in result.output
    assert result.output.splitlines()[-1] == f"{len(CHECKS) - 1} of {len(CHECKS)} checks passed"


def test_the_command_takes_parameters_and_image_shapes() -> None:
    options = ["--params", '{"channels": 4}', "--image-shape", "3", "16", "16"]
    result = CliRunner().invoke(cli, ["plugin", "check", "conv4", *options], standalone_mode=False)
    assert result.output.splitlines()[-1] == f"{len(CHECKS)} of {len(CHECKS)} checks passed"
    assert result.return_value == 0


@pytest.mark.parametrize("params", ['{"chanels": 4}', '{"channels": 0}'])
def test_wrong_parameters_are_refused_before_any_check(params: str) -> None:
    result = CliRunner().invoke(cli, ["plugin", "check", "conv4", "--params", params])
    assert result.exit_code == 2
    assert "--params of 'conv4': chan" in result.output


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("conv4", ["--steps", "3"], "--steps is for algorithms, and 'conv4' is a backbone"),
        ("conv4", ["--transductive"], "--transductive is for algorithms"),
        ("protonet", ["--image-shape", "1", "28", "28"], "--image-shape is for backbones, and 'protonet' is a"),
    ],
)
def test_options_of_another_kind_are_refused(name: str, options: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["plugin", "check", name, *options])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
