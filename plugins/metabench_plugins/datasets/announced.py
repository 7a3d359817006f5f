"""The built-in datasets, as `metabench list` shows them: no class of them is imported here."""

from __future__ import annotations

from metabench.specs import DatasetSpec

_HERE = "metabench_plugins.datasets"

#: Licences are those that the authors of the data state; what is not certain is left out, and shown as unknown. Data
#: that metabench makes have its own.

DATASETS = [
    DatasetSpec(
        "folder",
        f"{_HERE}.folder:Folder",
        "your own images, in class folders, lists or archives",
    ),
    DatasetSpec(
        "features",
        f"{_HERE}.features:Features",
        "your own vectors, e.g. features of a text or audio model",
    ),
    DatasetSpec(
        "omniglot",
        f"{_HERE}.omniglot:Omniglot",
        "1623 handwritten characters of 50 alphabets, 20 drawings each",
        "Lake et al. 2015",
        "https://github.com/brendenlake/omniglot",
        licence="MIT",
    ),
    DatasetSpec(
        "miniimagenet",
        f"{_HERE}.miniimagenet:MiniImageNet",
        "100 classes of ImageNet, 600 images each; from pickles, lists or folders",
        "Ravi & Larochelle 2017",
        "https://openreview.net/forum?id=rJY0-Kcll",
        licence="ImageNet's terms of access: non-commercial research and education",
    ),
    DatasetSpec(
        "tieredimagenet",
        f"{_HERE}.tieredimagenet:TieredImageNet",
        "608 classes of ImageNet, whole categories in each split; from pickles, arrays, lists or folders",
        "Ren et al. 2018",
        "https://arxiv.org/abs/1803.00676",
        licence="ImageNet's terms of access: non-commercial research and education",
    ),
    DatasetSpec(
        "cifarfs",
        f"{_HERE}.cifar:CifarFS",
        "CIFAR-100 as a few-shot dataset, 32 pixels; from CIFAR-100, pickles or folders",
        "Bertinetto et al. 2019",
        "https://arxiv.org/abs/1805.08136",
        licence="none stated by the authors of CIFAR-100",
    ),
    DatasetSpec(
        "fc100",
        f"{_HERE}.cifar:FC100",
        "CIFAR-100 with other superclasses in each split; from CIFAR-100 or pickles",
        "Oreshkin et al. 2018",
        "https://arxiv.org/abs/1805.10123",
        licence="none stated by the authors of CIFAR-100",
    ),
    DatasetSpec(
        "cub",
        f"{_HERE}.cub:Cub",
        "200 species of birds, in either of two splits",
        "Wah et al. 2011",
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
    ),
    DatasetSpec(
        "emnist",
        f"{_HERE}.emnist:Emnist",
        "62 handwritten digits and letters, to test what Omniglot trains",
        "Cohen et al. 2017",
        "https://arxiv.org/abs/1702.05373",
    ),
    DatasetSpec(
        "metaalbum",
        f"{_HERE}.metaalbum:MetaAlbum",
        "any of the 40 sets of Meta-Album",
        "Ullah et al. 2022",
        "https://meta-album.github.io",
    ),
    *(
        DatasetSpec(
            name,
            f"{_HERE}.bscd:{cls}",
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
        f"{_HERE}.metadataset:MetaDataset",
        "a source of Meta-Dataset, from its TFRecord files",
        "Triantafillou et al. 2020",
        "https://arxiv.org/abs/1903.03096",
    ),
    DatasetSpec(
        "omniglot-runs",
        f"{_HERE}.omniglot_runs:OmniglotRuns",
        "Omniglot tested in its authors' 20 one-shot runs of 20 characters",
        "Lake et al. 2015",
        "https://github.com/brendenlake/omniglot",
        licence="MIT",
    ),
    DatasetSpec(
        "glyphs",
        f"{_HERE}.glyphs:Glyphs",
        "350 invented characters, 20 drawings each, generated without a download",
        licence="MIT",
    ),
    DatasetSpec(
        "sinusoid",
        f"{_HERE}.sinusoid:Sinusoid",
        "regression: sinusoids of random amplitude and phase",
        "Finn et al. 2017",
        "https://arxiv.org/abs/1703.03400",
        licence="MIT",
    ),
]
