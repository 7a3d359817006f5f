"""The built-in algorithms, as `metabench list` shows them: no class of them is imported here."""

from __future__ import annotations

from metabench.specs import AlgorithmSpec

_HERE = "metabench_plugins.algorithms"

ALGORITHMS = [
    AlgorithmSpec(
        "maml",
        f"{_HERE}.maml:MAML",
        "learns an initialisation that a few gradient steps adapt (first or second order)",
        "Finn et al. 2017",
        "https://arxiv.org/abs/1703.03400",
    ),
    AlgorithmSpec(
        "reptile",
        f"{_HERE}.reptile:Reptile",
        "moves the initialisation towards the weights that training on a task leads to",
        "Nichol et al. 2018",
        "https://arxiv.org/abs/1803.02999",
    ),
    AlgorithmSpec(
        "protonet",
        f"{_HERE}.protonet:ProtoNet",
        "classifies by the squared distance to the mean embedding of each class",
        "Snell et al. 2017",
        "https://arxiv.org/abs/1703.05175",
    ),
    AlgorithmSpec(
        "matchingnet",
        f"{_HERE}.matchingnet:MatchingNet",
        "classifies by cosine attention over the support images",
        "Vinyals et al. 2016",
        "https://arxiv.org/abs/1606.04080",
    ),
    AlgorithmSpec(
        "siamese",
        f"{_HERE}.siamese:Siamese",
        "learns whether two images are of the same class; predicts the most similar class",
        "Koch et al. 2015",
        "https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf",
    ),
    AlgorithmSpec(
        "classifier",
        f"{_HERE}.classifier:Classifier",
        "classifies all training classes, then trains a new linear layer for each episode (Baseline)",
        "Chen et al. 2019",
        "https://arxiv.org/abs/1904.04232",
    ),
    AlgorithmSpec(
        "classifier-cosine",
        f"{_HERE}.classifier_cosine:ClassifierCosine",
        "classifies all training classes by cosine, then trains a new cosine layer for each episode (Baseline++)",
        "Chen et al. 2019",
        "https://arxiv.org/abs/1904.04232",
    ),
    AlgorithmSpec(
        "simpleshot",
        f"{_HERE}.simpleshot:SimpleShot",
        "classifies all training classes, then takes the nearest mean of centred, normalised features",
        "Wang et al. 2019",
        "https://arxiv.org/abs/1911.04623",
    ),
    AlgorithmSpec(
        "rfs",
        f"{_HERE}.rfs:RFS",
        "classifies all training classes, then fits a logistic regression to distorted support images; distils",
        "Tian et al. 2020",
        "https://arxiv.org/abs/2003.11539",
    ),
    AlgorithmSpec(
        "pretrained",
        f"{_HERE}.pretrained:Pretrained",
        "fits one network to all regression tasks; at test, fine-tunes it by gradient steps",
        "Finn et al. 2017",
        "https://arxiv.org/abs/1703.03400",
    ),
]
