"""Check a backbone against the contract of `metabench.api.Backbone`.

`metabench.testing.BackboneChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from metabench.api import Backbone
from metabench.conformance import checks
from metabench.conformance.checks import NotConforming
from metabench.errors import Unfit, in_one_line
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager

#: (C, H, W) of an image.
ImageShape = tuple[int, int, int]

#: Image shapes that a backbone takes or refuses: grey, colour, and smaller.
IMAGE_SHAPES: tuple[ImageShape, ...] = ((1, 28, 28), (3, 32, 32), (1, 20, 20))

#: Images of a call, and its support images.
_IMAGES, _SUPPORT = 12, 5
#: Largest difference of features that is rounding, as a fraction of the largest feature.
_ROUNDING = 1e-4
#: Largest distance of features in bfloat16 from those in float32, as a fraction of their norm: an operation rounds by
#: up to 2**-9, and a deep network has a hundred of them.
_BFLOAT16 = 0.1


@dataclass(frozen=True)
class Subject:
    """The backbone to check.

    Attributes:
        name: name of the backbone, as its plugin announces it, or ``FILE.py:CLASS``.
        params: its parameters.
        image_shapes: image shapes to try, of which it takes at least one.
        plugins: the plugin manager that provides the class.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    image_shapes: Sequence[ImageShape] = IMAGE_SHAPES
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)

    @cached_property
    def image_shape(self) -> ImageShape:
        """Return the first image shape that the backbone takes."""
        for shape, _ in self.accepted():
            return shape
        refused = ", ".join(map(_text, self.image_shapes))
        raise NotConforming(
            f"it refuses all image shapes tried, {refused}: take one of them, or name a shape to try "
            "(`image_shapes` of BackboneChecks, --image-shape)"
        )

    def accepted(self) -> Iterator[tuple[ImageShape, Backbone]]:
        """Yield each image shape that the backbone takes, with a new backbone."""
        for shape in self.image_shapes:
            try:
                backbone = self.build(shape)
            except Unfit:
                continue
            yield shape, backbone

    def build(self, image_shape: ImageShape | None = None, seed: int = 0) -> Backbone:
        """Return a new backbone for images of one shape; by default, the first that it takes."""
        shape = image_shape or self.image_shape
        cls = self.plugins.backbone_class(self.name)
        config = validate_config(cls.Config, dict(self.params))
        torch.manual_seed(seed)
        return cls(config, shape)


def made_up_images(shape: ImageShape, seed: int = 0) -> Tensor:
    """Return [12, C, H, W] normalised noise."""
    return torch.randn(_IMAGES, *shape, generator=torch.Generator().manual_seed(seed))


def embed(backbone: Backbone, x: Tensor, support: int | None = _SUPPORT, seed: int = 0) -> Tensor:
    """Return the features of images without a gradient, from a seeded generator."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return backbone(x, support)


def train(backbone: Backbone, shape: ImageShape, steps: int = 2) -> None:
    """Make `steps` updates of the parameters that require a gradient."""
    # The extra parameter is for backbones without any: an optimiser refuses an empty list.
    optimiser = torch.optim.Adam([*backbone.parameters(), nn.Parameter(torch.zeros(1))])
    for step in range(steps):
        backbone.train()
        torch.manual_seed(step)
        optimiser.zero_grad()
        features = backbone(made_up_images(shape, step), _SUPPORT)
        if features.requires_grad:
            torch.autograd.backward((features * torch.randn(features.shape)).mean())
        optimiser.step()


def trained(subject: Subject) -> Backbone:
    """Return a backbone after two updates, in eval mode."""
    backbone = subject.build()
    train(backbone, subject.image_shape)
    return backbone.eval()


def state_of(backbone: Backbone) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers, also of buffers that are not saved."""
    named = [*backbone.named_parameters(), *backbone.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that has another value; None if all are equal, bit for bit."""
    for name, value in before.items():
        if name not in after or not torch.equal(value, after[name]):
            return name
    return None


def distance(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of features, as a fraction of the largest feature."""
    scale = max(float(one.abs().max()), float(other.abs().max()), torch.finfo(torch.float32).tiny)
    return float((one - other).abs().max()) / scale


def _text(shape: ImageShape) -> str:
    return "×".join(map(str, shape))


# ----------------------------------------------------------------------------------------------- the checks


def check_parameters(subject: Subject) -> None:
    """Unknown parameters are refused by its Config."""
    checks.refuse_unknown_parameters(subject.plugins.backbone_class(subject.name).Config)


def check_shapes(subject: Subject) -> None:
    """It takes several image shapes, or refuses one by name.

    A refusal is `metabench.api.Unfit` whose message has the height and the width of the images.
    """
    for shape in subject.image_shapes:
        try:
            subject.build(shape)
        except Unfit as error:
            if not set(map(str, shape[1:])) <= set(re.findall(r"\d+", str(error))):
                raise NotConforming(
                    f"it refuses images of {_text(shape)} by a message that does not name their shape "
                    f"({in_one_line(error)}): say which shape was given, and which are possible"
                ) from error
        except Exception as error:
            raise NotConforming(
                f"{in_one_line(error)}, for images of {_text(shape)}: take them, or refuse them by a "
                "metabench.api.Unfit that names their shape"
            ) from error
    _ = subject.image_shape  # it takes at least one


def check_features(subject: Subject) -> None:
    """Features are finite float32 numbers [n, `features`], as many as a map of `map_shape` has, if it is set."""
    for shape, backbone in subject.accepted():
        if backbone.map_shape and math.prod(backbone.map_shape) != backbone.features:
            raise NotConforming(
                f"maps of {_text(backbone.map_shape)} have {math.prod(backbone.map_shape)} numbers, and `features` is "
                f"{backbone.features}: set `map_shape` for features that are flattened maps only"
            )
        for training in (True, False):
            where = f"in {'train' if training else 'eval'} mode, for images of {_text(shape)}"
            try:
                features: object = embed(backbone.train(training), made_up_images(shape))
            except Exception as error:
                raise NotConforming(f"{in_one_line(error)} ({where})") from error
            expected = [_IMAGES, backbone.features]
            if not isinstance(features, Tensor):
                raise NotConforming(f"it returns {type(features).__name__} {where}: return a tensor {expected}")
            if list(features.shape) != expected or features.dtype != torch.float32:
                came = f"{str(features.dtype).removeprefix('torch.')} {list(features.shape)}"
                raise NotConforming(
                    f"it returns {came} {where}, and should return float32 {expected} ([n, `features`]): set "
                    "`features` to the length of a feature vector"
                )
            if not bool(torch.isfinite(features).all()):
                raise NotConforming(f"features are not finite {where}: correct the initialisation or a division by 0")


def check_repeatable(subject: Subject) -> None:
    """In eval mode, the same images have the same features."""
    backbone, images = trained(subject), made_up_images(subject.image_shape)
    if not torch.equal(embed(backbone, images, seed=0), embed(backbone, images, seed=1)):
        raise NotConforming(
            "two calls in eval mode return other features: draw random numbers (dropout) only while self.training is "
            "true"
        )


def check_evaluation_changes_nothing(subject: Subject) -> None:
    """In eval mode, no parameter and no buffer changes."""
    backbone = trained(subject)
    before = state_of(backbone)
    embed(backbone, made_up_images(subject.image_shape, seed=1))
    name = changed(before, state_of(backbone))
    if name:
        raise NotConforming(
            f"a call in eval mode changes {name}: update buffers (running averages) only while self.training is true"
        )


def check_per_image(subject: Subject) -> None:
    """If `per_image`, features in eval mode depend on one image only."""
    backbone = trained(subject)
    if not backbone.per_image:
        return
    images = made_up_images(subject.image_shape)
    # Other statistics: a mean or a variance over the images would move.
    others = 1 + 3 * made_up_images(subject.image_shape, seed=1)
    some = embed(backbone, images, None)[:_SUPPORT]
    alone = torch.cat([embed(backbone, image, None) for image in torch.split(images[:_SUPPORT], 1)])
    among_others = embed(backbone, torch.cat([images[:_SUPPORT], others]), None)[:_SUPPORT]
    as_queries = embed(backbone, torch.cat([others, images[:_SUPPORT]]), len(others))[len(others) :]
    moved = max(distance(some, features) for features in (alone, among_others, as_queries))
    if moved > _ROUNDING:
        raise NotConforming(
            f"it sets `per_image`, but features of an image move by {moved:.2g} of the largest one with the other "
            "images of the call: use no statistics of them in eval mode, or do not set `per_image`"
        )


def check_support(subject: Subject) -> None:
    """Unless it sets `needs_support`, features do not depend on `support`.

    Without `support`, all images are support images.
    """
    backbone, images = trained(subject), made_up_images(subject.image_shape)
    for training in (False, True):
        backbone.train(training)
        # Calls in train mode may change buffers that the next call uses: each has a copy.
        everything, all_support, few_support = (
            embed(copy.deepcopy(backbone), images, support) for support in (None, _IMAGES, _SUPPORT)
        )
        if distance(everything, all_support) > _ROUNDING:
            raise NotConforming(
                f"features with support=None are not those with support={_IMAGES}, the number of images: None means "
                "that all are support images"
            )
        moved = distance(everything, few_support)
        if moved > _ROUNDING and not backbone.needs_support:
            raise NotConforming(
                f"features move by {moved:.2g} of the largest one with the number of support images: set "
                "`needs_support`, so that queries are embedded together with their support set"
            )


def check_saving(subject: Subject) -> None:
    """Weights that were saved and loaded give the same features."""
    backbone, loaded = trained(subject), subject.build(seed=1)
    loaded.load_state_dict({name: value.clone() for name, value in backbone.state_dict().items()})
    images = made_up_images(subject.image_shape)
    if not torch.equal(embed(backbone, images), embed(loaded.eval(), images)):
        raise NotConforming(
            "weights that were saved and loaded give other features: keep every tensor that forward needs in "
            "state_dict(), see register_buffer()"
        )


def check_seed(subject: Subject) -> None:
    """The same seed gives the same weights, bit for bit."""
    name = changed(state_of(subject.build()), state_of(subject.build()))
    if name:
        raise NotConforming(
            f"two backbones of one seed differ in {name}: draw initial weights from torch's default generator"
        )


def check_gradients(subject: Subject) -> None:
    """In train mode, gradients reach all trainable parameters."""
    backbone = subject.build().train()
    trainable = {name: value for name, value in backbone.named_parameters() if value.requires_grad}
    if not trainable:
        return
    features = backbone(made_up_images(subject.image_shape), _SUPPORT)
    if not features.requires_grad:
        raise NotConforming("features have no gradient: compute them without torch.no_grad() and detach()")
    torch.autograd.backward(features.square().sum())
    missed = [name for name, value in trainable.items() if value.grad is None]
    if missed:
        raise NotConforming(
            f"no gradient reaches {', '.join(missed[:3])}{', …' if len(missed) > 3 else ''}: use these parameters, "
            "remove them, or set their requires_grad to False"
        )
    broken = [name for name, value in trainable.items() if value.grad is not None and not value.grad.isfinite().all()]
    if broken:
        raise NotConforming(f"the gradient of {broken[0]} is not finite: correct a division by 0 or a root of 0")


def check_frozen(subject: Subject) -> None:
    """Parameters without requires_grad stay as they are in training.

    So do the buffers (running averages) of parts without trainable parameters, if the backbone says that it is
    `frozen`. Every second parameter is frozen by the check, too.
    """
    backbone = subject.build()
    if backbone.frozen:
        backbone.requires_grad_(False)  # as every algorithm does
    buffers = _buffers_of_frozen_parts(backbone) if backbone.frozen else {}
    for parameter in list(backbone.parameters())[::2]:
        parameter.requires_grad_(False)
    frozen = {name: value.detach().clone() for name, value in backbone.named_parameters() if not value.requires_grad}
    train(backbone, subject.image_shape)
    thawed = next((name for name, value in backbone.named_parameters() if name in frozen and value.requires_grad), None)
    if thawed:
        raise NotConforming(
            f"{thawed} was frozen, and is trainable after train(): leave requires_grad as it is where train() or "
            "forward is called"
        )
    name = changed(frozen, state_of(backbone))
    if name:
        raise NotConforming(f"{name} has requires_grad=False, and changes in training: do not assign to it")
    name = changed(buffers, state_of(backbone))
    if name:
        raise NotConforming(
            f"it sets `frozen`, but {name} changes in train mode: override train() to keep frozen parts in eval mode"
        )


def _buffers_of_frozen_parts(backbone: Backbone) -> dict[str, Tensor]:
    """Return copies of the buffers of modules whose parameters are all frozen."""
    found = {}
    for prefix, module in backbone.named_modules():
        parameters = list(module.parameters())
        if any(parameter.requires_grad for parameter in parameters) or not (parameters or module is backbone):
            continue
        for name, value in module.named_buffers(prefix):
            found[name] = value.detach().clone()
    return found


def check_autocast(subject: Subject) -> None:
    """With autocast in bfloat16, features stay float32, and close."""
    backbone, images = trained(subject), made_up_images(subject.image_shape)
    expected = embed(backbone, images)
    backbone.autocast = torch.bfloat16
    features = embed(backbone, images)
    if features.dtype != torch.float32:
        came = str(features.dtype).removeprefix("torch.")
        raise NotConforming(
            f"with autocast in bfloat16, features are {came}: define forward, and leave __call__, which converts "
            "features to float32"
        )
    # Not `norm() / norm()`: all features may be 0.
    if not float((features - expected).norm()) <= _BFLOAT16 * float(expected.norm()):
        raise NotConforming(
            f"with autocast in bfloat16, features are {float((features - expected).norm() / expected.norm()):.0%} "
            f"off: compute sensitive parts in float32, within torch.autocast({images.device.type!r}, enabled=False)"
        )


CHECKS: dict[str, Callable[[Subject], None]] = {
    "parameters": check_parameters,
    "shapes": check_shapes,
    "features": check_features,
    "repeatable": check_repeatable,
    "evaluation changes nothing": check_evaluation_changes_nothing,
    "per image": check_per_image,
    "support": check_support,
    "saving": check_saving,
    "seed": check_seed,
    "gradients": check_gradients,
    "frozen": check_frozen,
    "autocast": check_autocast,
}
