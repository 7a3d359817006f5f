"""Hooks of the built-in plugin.

`metabench list` imports this module, which must import no torch to be fast.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from metabench.specs import AlgorithmSpec, BackboneSpec, DatasetSpec, LoggerSpec, PublishedResult, SuiteSpec, hookimpl

_HERE = "metabench_plugins"


@hookimpl
def metabench_algorithms() -> list[AlgorithmSpec]:
    """Return MAML, Reptile, ProtoNet, MatchingNet, Siamese, Baseline, SimpleShot and the pretrained baseline."""
    return [
        AlgorithmSpec(
            "maml",
            f"{_HERE}.algorithms.maml:MAML",
            "learns an initialisation that a few gradient steps adapt (first or second order)",
            "Finn et al. 2017",
            "https://arxiv.org/abs/1703.03400",
        ),
        AlgorithmSpec(
            "reptile",
            f"{_HERE}.algorithms.reptile:Reptile",
            "moves the initialisation towards the weights that training on a task leads to",
            "Nichol et al. 2018",
            "https://arxiv.org/abs/1803.02999",
        ),
        AlgorithmSpec(
            "protonet",
            f"{_HERE}.algorithms.protonet:ProtoNet",
            "classifies by the squared distance to the mean embedding of each class",
            "Snell et al. 2017",
            "https://arxiv.org/abs/1703.05175",
        ),
        AlgorithmSpec(
            "matchingnet",
            f"{_HERE}.algorithms.matchingnet:MatchingNet",
            "classifies by cosine attention over the support images",
            "Vinyals et al. 2016",
            "https://arxiv.org/abs/1606.04080",
        ),
        AlgorithmSpec(
            "siamese",
            f"{_HERE}.algorithms.siamese:Siamese",
            "learns whether two images are of the same class; predicts the most similar class",
            "Koch et al. 2015",
            "https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf",
        ),
        AlgorithmSpec(
            "classifier",
            f"{_HERE}.algorithms.classifier:Classifier",
            "classifies all training classes, then trains a new linear layer for each episode (Baseline)",
            "Chen et al. 2019",
            "https://arxiv.org/abs/1904.04232",
        ),
        AlgorithmSpec(
            "simpleshot",
            f"{_HERE}.algorithms.simpleshot:SimpleShot",
            "classifies all training classes, then takes the nearest mean of centred, normalised features",
            "Wang et al. 2019",
            "https://arxiv.org/abs/1911.04623",
        ),
        AlgorithmSpec(
            "pretrained",
            f"{_HERE}.algorithms.pretrained:Pretrained",
            "fits one network to all regression tasks; at test, fine-tunes it by gradient steps",
            "Finn et al. 2017",
            "https://arxiv.org/abs/1703.03400",
        ),
    ]


@hookimpl
def metabench_backbones() -> list[BackboneSpec]:
    """Return Conv4, MLP and identity."""
    return [
        BackboneSpec(
            "conv4",
            f"{_HERE}.backbones.conv4:Conv4",
            "four blocks of 3×3 convolution, batch norm and ReLU, each halving the image",
            "Vinyals et al. 2016",
            "https://arxiv.org/abs/1606.04080",
        ),
        BackboneSpec(
            "mlp",
            f"{_HERE}.backbones.mlp:MLP",
            "fully connected layers with ReLU, for vectors",
        ),
        BackboneSpec(
            "identity",
            f"{_HERE}.backbones.identity:Identity",
            "the pixels, or the vectors of a dataset of features, as they are",
        ),
    ]


@hookimpl
def metabench_datasets() -> list[DatasetSpec]:
    """Return the datasets: one's own images, published ones, and those that are made."""
    return [
        DatasetSpec(
            "folder",
            f"{_HERE}.datasets.folder:Folder",
            "your own images, in class folders, lists or archives",
        ),
        DatasetSpec(
            "omniglot",
            f"{_HERE}.datasets.omniglot:Omniglot",
            "1623 handwritten characters of 50 alphabets, 20 drawings each",
            "Lake et al. 2015",
            "https://github.com/brendenlake/omniglot",
        ),
        DatasetSpec(
            "miniimagenet",
            f"{_HERE}.datasets.miniimagenet:MiniImageNet",
            "100 classes of ImageNet, 600 images each; from pickles, lists or folders",
            "Ravi & Larochelle 2017",
            "https://openreview.net/forum?id=rJY0-Kcll",
        ),
        DatasetSpec(
            "tieredimagenet",
            f"{_HERE}.datasets.tieredimagenet:TieredImageNet",
            "608 classes of ImageNet, whole categories in each split; from pickles, arrays, lists or folders",
            "Ren et al. 2018",
            "https://arxiv.org/abs/1803.00676",
        ),
        DatasetSpec(
            "cifarfs",
            f"{_HERE}.datasets.cifar:CifarFS",
            "CIFAR-100 as a few-shot dataset, 32 pixels; from CIFAR-100, pickles or folders",
            "Bertinetto et al. 2019",
            "https://arxiv.org/abs/1805.08136",
        ),
        DatasetSpec(
            "fc100",
            f"{_HERE}.datasets.cifar:FC100",
            "CIFAR-100 with other superclasses in each split; from CIFAR-100 or pickles",
            "Oreshkin et al. 2018",
            "https://arxiv.org/abs/1805.10123",
        ),
        DatasetSpec(
            "cub",
            f"{_HERE}.datasets.cub:Cub",
            "200 species of birds, in either of two splits",
            "Wah et al. 2011",
            "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        ),
        DatasetSpec(
            "emnist",
            f"{_HERE}.datasets.emnist:Emnist",
            "62 handwritten digits and letters, to test what Omniglot trains",
            "Cohen et al. 2017",
            "https://arxiv.org/abs/1702.05373",
        ),
        DatasetSpec(
            "metaalbum",
            f"{_HERE}.datasets.metaalbum:MetaAlbum",
            "any of the 40 sets of Meta-Album",
            "Ullah et al. 2022",
            "https://meta-album.github.io",
        ),
        *(
            DatasetSpec(
                name,
                f"{_HERE}.datasets.bscd:{cls}",
                f"{content}, to test what others train",
                "Guo et al. 2020",
                "https://arxiv.org/abs/1912.07200",
            )
            for name, cls, content in (
                ("eurosat", "EuroSat", "ten uses of land from a satellite"),
                ("cropdisease", "CropDisease", "38 kinds of leaves"),
                ("isic", "Isic", "seven kinds of skin lesions"),
                ("chestx", "ChestX", "radiographs with seven findings"),
            )
        ),
        DatasetSpec(
            "metadataset",
            f"{_HERE}.datasets.metadataset:MetaDataset",
            "a source of Meta-Dataset, from its TFRecord files",
            "Triantafillou et al. 2020",
            "https://arxiv.org/abs/1903.03096",
        ),
        DatasetSpec(
            "omniglot-runs",
            f"{_HERE}.datasets.omniglot_runs:OmniglotRuns",
            "Omniglot tested in its authors' 20 one-shot runs of 20 characters",
            "Lake et al. 2015",
            "https://github.com/brendenlake/omniglot",
        ),
        DatasetSpec(
            "glyphs",
            f"{_HERE}.datasets.glyphs:Glyphs",
            "350 invented characters, 20 drawings each, generated without a download",
        ),
        DatasetSpec(
            "sinusoid",
            f"{_HERE}.datasets.sinusoid:Sinusoid",
            "regression: sinusoids of random amplitude and phase",
            "Finn et al. 2017",
            "https://arxiv.org/abs/1703.03400",
        ),
    ]


@hookimpl
def metabench_loggers() -> list[LoggerSpec]:
    """Return the loggers for TensorBoard and MLflow."""
    return [
        LoggerSpec(
            "tensorboard",
            f"{_HERE}.loggers.tensorboard:TensorBoardLogger",
            "event files in OUTPUT/tensorboard: validation curves, metrics, hyper-parameters",
            link="https://www.tensorflow.org/tensorboard",
            requires="metabench[tensorboard]",
        ),
        LoggerSpec(
            "mlflow",
            f"{_HERE}.loggers.mlflow:MLflowLogger",
            "one MLflow run for each cell, stored at MLFLOW_TRACKING_URI",
            link="https://mlflow.org",
            requires="metabench[mlflow]",
        ),
    ]


@hookimpl
def metabench_published_results() -> list[PublishedResult]:
    """Return the accuracies of the papers on Omniglot."""
    from metabench_plugins.published import published_results

    return published_results()


@hookimpl
def metabench_suites() -> list[SuiteSpec]:
    """Return the suites installed with this package."""
    package = find_spec(f"{_HERE}.suites")
    folders = list(package.submodule_search_locations or []) if package else []
    return [SuiteSpec(path.stem, path) for folder in folders for path in sorted(Path(folder).glob("*.yaml"))]
