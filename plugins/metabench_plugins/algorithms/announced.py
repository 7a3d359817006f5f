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
        differs=(
            "the inner loop descends the mean loss of the support set: the authors' rate of 0.4 is 2.0 here",
            "the norm of the backbone is a parameter: the authors normalise by the batch, with the queries",
        ),
    ),
    AlgorithmSpec(
        "anil",
        f"{_HERE}.anil:ANIL",
        "MAML whose inner loop moves the linear head only",
        "Raghu et al. 2020",
        "https://arxiv.org/abs/1909.09157",
        differs=("features are computed once an episode; with `norm: batch`, of support set and queries together",),
    ),
    AlgorithmSpec(
        "metasgd",
        f"{_HERE}.metasgd:MetaSGD",
        "MAML that learns a step size for each number of the weights",
        "Li et al. 2017",
        "https://arxiv.org/abs/1707.09835",
    ),
    AlgorithmSpec(
        "protomaml",
        f"{_HERE}.protomaml:ProtoMAML",
        "MAML whose linear layer begins as the prototypes of the episode",
        "Triantafillou et al. 2020",
        "https://arxiv.org/abs/1903.03096",
        differs=("the inner loop moves scales and shifts of batch norm, too",),
    ),
    AlgorithmSpec(
        "reptile",
        f"{_HERE}.reptile:Reptile",
        "moves the initialisation towards the weights that training on a task leads to",
        "Nichol et al. 2018",
        "https://arxiv.org/abs/1803.02999",
        differs=("each query is answered alone by default: published results are transductive (`transductive: true`)",),
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
        differs=("without full context embeddings by default (`fce: true` adds them)",),
    ),
    AlgorithmSpec(
        "relationnet",
        f"{_HERE}.relationnet:RelationNet",
        "learns to compare the feature maps of a query and of a class",
        "Sung et al. 2018",
        "https://arxiv.org/abs/1711.06025",
        differs=(
            "batch norm tests with running averages, not with the statistics of all queries",
            "one norm of the gradient is clipped, not one of the network and one of the relation module",
        ),
    ),
    AlgorithmSpec(
        "siamese",
        f"{_HERE}.siamese:Siamese",
        "learns whether two images are of the same class; predicts the most similar class",
        "Koch et al. 2015",
        "https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf",
        differs=(
            "the backbone takes the place of Koch's network on 105 pixels",
            "training episodes give the pairs, in place of a fixed set of pairs",
            "images are distorted anew at each step (`train.augment: [{affine: {}}]`), not copied eight times",
        ),
    ),
    AlgorithmSpec(
        "r2d2",
        f"{_HERE}.r2d2:R2D2",
        "ridge regression on the support features, solved in closed form and trained through (also MetaOptNet-RR)",
        "Bertinetto et al. 2019",
        "https://arxiv.org/abs/1805.08136",
        differs=(
            "the predictions have no learnt bias: it is the same for all classes, and changes no probability",
            "λ is learnt by default; in the authors' code it is an option",
            "training episodes have the shot of the suite, not random ones",
        ),
    ),
    AlgorithmSpec(
        "dkt",
        f"{_HERE}.dkt:DKT",
        "deep kernel transfer: Gaussian processes on features, trained by their marginal likelihood",
        "Patacchiola et al. 2020",
        "https://arxiv.org/abs/1910.05199",
        differs=(
            "the classes share the kernel's factor and the mean; in the authors' code, each label has its own",
            "`kernel: linear` has one learnt factor, not two",
            "the temperature is fitted in validation episodes; the authors fit it in episodes of the test classes",
        ),
    ),
    AlgorithmSpec(
        "classifier",
        f"{_HERE}.classifier:Classifier",
        "classifies all training classes, then trains a new linear layer for each episode (Baseline)",
        "Chen et al. 2019",
        "https://arxiv.org/abs/1904.04232",
        differs=("the learning rate and the distortions are those of the suite",),
    ),
    AlgorithmSpec(
        "classifier-cosine",
        f"{_HERE}.classifier_cosine:ClassifierCosine",
        "classifies all training classes by cosine, then trains a new cosine layer for each episode (Baseline++)",
        "Chen et al. 2019",
        "https://arxiv.org/abs/1904.04232",
        differs=("the learning rate and the distortions are those of the suite",),
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
        differs=(
            "weights are selected by validation; the authors test the last ones",
            "the distortions are those of the suite",
        ),
    ),
    AlgorithmSpec(
        "meta-baseline",
        f"{_HERE}.meta_baseline:MetaBaseline",
        "trains the scaled cosine to class means on episodes, from the weights of a classifier",
        "Chen et al. 2021",
        "https://arxiv.org/abs/2003.04390",
        differs=("images have the size of the suite, not 80 pixels",),
    ),
    AlgorithmSpec(
        "feat",
        f"{_HERE}.feat:FEAT",
        "adapts the prototypes of an episode to one another by self-attention, from the weights of a classifier",
        "Ye et al. 2020",
        "https://arxiv.org/abs/1812.03664",
        differs=("by default as for 1-shot: for 5-shot, the authors take `contrast: 0.1`, `contrast_temperature: 32`",),
    ),
    AlgorithmSpec(
        "pretrained",
        f"{_HERE}.pretrained:Pretrained",
        "fits one network to all regression tasks; at test, fine-tunes it by gradient steps",
        "Finn et al. 2017",
        "https://arxiv.org/abs/1703.03400",
    ),
    AlgorithmSpec(
        "nearest-pixel",
        f"{_HERE}.floors:NearestPixel",
        "floor: the nearest mean image of a class, without a network",
        floor=True,
    ),
    AlgorithmSpec(
        "untrained",
        f"{_HERE}.floors:Untrained",
        "floor: the nearest mean feature of a class, of the network as it was drawn",
        floor=True,
    ),
]
