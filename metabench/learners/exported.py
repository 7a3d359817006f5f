"""Export the backbone of a trained learner, as a program of torch or as ONNX."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from metabench.engine.learner import computing
from metabench.errors import UsageError, in_one_line
from metabench.files import atomic_file
from metabench.learners.trained import TrainedLearner
from metabench.records.record import Record

#: Largest accepted difference between exported and original features, as a share of the largest feature.
_TOLERANCE = 1e-4
#: The first version of torch whose ONNX exporter takes a program of `torch.export`.
_ONNX_SINCE = "2.6"


@dataclass(frozen=True)
class Exported:
    """What was exported, and how it was checked.

    Attributes:
        images: number of images whose features were compared.
        features: the length of a feature vector.
        difference: the largest difference of a feature, as a share of the largest feature.
        remarks: what a user of the file has to know.
    """

    images: int
    features: int
    difference: float
    remarks: Sequence[str]


class _Features(nn.Module):
    """The features of [n, C, H, W] float pixels between 0 and 1; of vectors, as they are.

    Args:
        backbone: the backbone.
        mean: mean of each channel.
        std: standard deviation of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return [n, D] features."""
        features: Tensor = self.backbone((pixels - self.mean) / self.std)
        return features


def export_backbone(learner: TrainedLearner, record: Record, path: Path) -> Exported:
    """Write the backbone of a learner to a file, whole or not at all.

    Its input is [n, C, H, W] float32 pixels between 0 and 1, as the dataset has them before mean and std; its output is
    [n, D] features. n is any number. The exported program is run on the support images of the first test episode, and
    on one of them alone, and compared with the network.

    Args:
        learner: the learner, on the CPU: a program runs on other devices, too, once it is moved there.
        record: the record of its cell.
        path: the file: ``.pt2`` for `torch.export`, ``.onnx`` for ONNX.

    Raises:
        UsageError: the file has another ending, a package is missing, or the backbone is no function of one image,
            cannot be exported, or has other features when exported.
    """
    check_target(path)
    backbone = learner.backbone
    if not backbone.per_image:
        raise UsageError(
            f"the features of {record.backbone} depend on the other images of an episode, so that it is no function of "
            "an image: train it with running averages (norm: running)"
        )
    scale = learner.scale_of_images
    network = _Features(backbone, *scale).eval()
    with computing(learner.cell.training, learner.device), torch.no_grad():
        images = learner.episode(0).support_x[0]
        pixels, expected = images * network.std + network.mean, backbone(images)
    write = _write_onnx if path.suffix == ".onnx" else _write_program
    try:
        with atomic_file(path) as temporary, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters, on what they do not need
            answers = write(network, pixels, temporary, _description(learner, record, scale))
            difference = _difference(answers, [expected, expected[:1]])
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}. Choose another place with --output") from error
    return Exported(len(pixels), expected.shape[1], difference, _remarks(learner, record))


def check_target(path: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        UsageError: it exists, has another ending, or ONNX is not installed or needs a newer torch.
    """
    if path.suffix not in (".pt2", ".onnx"):
        raise UsageError(f"--output {path}: give FILE.pt2 for torch.export, or FILE.onnx for ONNX")
    if path.exists():
        raise UsageError(f"{path} exists already: choose another file with --output")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if path.suffix == ".onnx" and missing:
        raise UsageError(f"ONNX needs the package {missing[0]}: pip install 'metabench[onnx]'")
    if path.suffix == ".onnx" and torch.__version__ < TorchVersion(_ONNX_SINCE):
        raise UsageError(f"ONNX needs torch {_ONNX_SINCE} or newer, and this is {torch.__version__}")


def _program(network: _Features, pixels: Tensor) -> Any:
    """Return the program of a network for any number of images.

    Raises:
        UsageError: torch cannot export it.
    """
    batch = torch.export.Dim("n", min=1, max=2**16)
    try:
        # Not strict: the code runs as it is, and need not be a kind of Python that torch compiles.
        return torch.export.export(network, (pixels,), dynamic_shapes=({0: batch},), strict=False)
    except Exception as error:  # torch raises almost anything
        raise UsageError(
            f"torch.export cannot export this backbone for any number of images: {in_one_line(error)}"
        ) from error


def _write_program(network: _Features, pixels: Tensor, path: Path, description: str) -> list[Tensor]:
    """Write a ``.pt2`` file; return what it answers about all images, and about one."""
    with open(path, "wb") as file:
        torch.export.save(_program(network, pixels), file, extra_files={"metabench.json": description})
    with open(path, "rb") as file:
        loaded = torch.export.load(file).module()
    return [loaded(pixels), loaded(pixels[:1])]


def _write_onnx(network: _Features, pixels: Tensor, path: Path, description: str) -> list[Tensor]:
    """Write an ``.onnx`` file; return what onnxruntime answers about all images, and about one."""
    import onnx
    import onnxruntime

    try:
        exported = torch.onnx.export(_program(network, pixels), dynamo=True, verbose=False)
        assert exported is not None, "an exported program makes an ONNX program"
        model = exported.model_proto
    except UsageError:
        raise
    except Exception as error:  # torch raises almost anything
        raise UsageError(f"ONNX lacks what this backbone computes: {in_one_line(error)}") from error
    model.metadata_props.append(onnx.StringStringEntryProto(key="metabench.json", value=description))
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [torch.from_numpy(session.run(None, {name: part.cpu().numpy()})[0]) for part in (pixels, pixels[:1])]


def _difference(answers: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference of features, as a share of their largest value.

    Raises:
        UsageError: it is too large.
    """
    largest = max(float(features.abs().max()) for features in expected) or 1.0
    pairs = zip(answers, expected, strict=True)
    difference = max(float((one.cpu() - other.cpu()).abs().max()) for one, other in pairs) / largest
    if not difference <= _TOLERANCE:
        raise UsageError(
            f"the exported backbone has other features than the network: they differ by {difference:.1e} of the "
            f"largest one, more than {_TOLERANCE:.0e}; nothing is written"
        )
    return difference


def _description(learner: TrainedLearner, record: Record, scale: tuple[Tensor, Tensor]) -> str:
    """Return what the file is, as JSON."""
    mean, std = (values.flatten().tolist() for values in scale)
    content = {
        "cell": record.cell,
        "algorithm": record.algorithm,
        "backbone": {
            "name": learner.cell.training.backbone.name,
            "params": dict(learner.cell.training.backbone.params),
        },
        "dataset": {"name": learner.cell.dataset.name, "params": dict(learner.cell.dataset.params)},
        "input": ["n", *learner.image_shape],
        "input_range": [0, 1],
        "normalised_inside": {"mean": mean, "std": std},
    }
    return json.dumps(content, default=str)


def _remarks(learner: TrainedLearner, record: Record) -> list[str]:
    lines = list(learner.remarks)
    if not learner.reads_features:
        lines.append(
            f"{record.algorithm} adapts from these weights to a support set: the file has them as they were trained"
        )
    return lines
