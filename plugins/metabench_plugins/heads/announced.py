"""The built-in heads on features, as `metabench list` shows them: no class of them is imported here."""

from __future__ import annotations

from metabench.specs import AlgorithmSpec

_HERE = "metabench_plugins.heads"

HEADS = [
    AlgorithmSpec(
        "nearest-mean",
        f"{_HERE}.nearest_mean:NearestMean",
        "takes the nearest class mean of features, by distance or cosine; trains nothing",
        "Mensink et al. 2013",
        "https://doi.org/10.1109/TPAMI.2013.83",
    ),
    AlgorithmSpec(
        "logistic-regression",
        f"{_HERE}.logistic_regression:LogisticRegression",
        "fits a logistic regression to the features of each support set; trains nothing",
        "Tian et al. 2020",
        "https://arxiv.org/abs/2003.11539",
    ),
    AlgorithmSpec(
        "ridge",
        f"{_HERE}.ridge:Ridge",
        "regresses labels on the features of each support set, in closed form; trains nothing",
        "Bertinetto et al. 2019",
        "https://arxiv.org/abs/1805.08136",
    ),
    AlgorithmSpec(
        "finetuning",
        f"{_HERE}.finetuning:Finetuning",
        "trains a cosine classifier of features for each episode, from class means on",
        "Chen et al. 2019",
        "https://arxiv.org/abs/1904.04232",
    ),
    AlgorithmSpec(
        "tip-adapter",
        f"{_HERE}.tip_adapter:TipAdapter",
        "adds up the similarities to support images, of features or of distorted views; trains nothing",
        "Zhang et al. 2022",
        "https://arxiv.org/abs/2207.09519",
    ),
    AlgorithmSpec(
        "bd-cspn",
        f"{_HERE}.bd_cspn:BDCSPN",
        "rectifies class means by the queries (transductive); trains nothing",
        "Liu et al. 2020",
        "https://arxiv.org/abs/1911.10713",
    ),
    AlgorithmSpec(
        "laplacianshot",
        f"{_HERE}.laplacianshot:LaplacianShot",
        "assigns neighbouring queries to one class (transductive); trains nothing",
        "Ziko et al. 2020",
        "https://arxiv.org/abs/2006.15486",
    ),
    AlgorithmSpec(
        "tim",
        f"{_HERE}.tim:TIM",
        "maximises what predictions tell of the queries (transductive); trains nothing",
        "Boudiaf et al. 2020",
        "https://arxiv.org/abs/2008.11297",
    ),
    AlgorithmSpec(
        "pt-map",
        f"{_HERE}.pt_map:PTMAP",
        "assigns queries to classes in equal numbers by optimal transport (transductive); trains nothing",
        "Hu et al. 2020",
        "https://arxiv.org/abs/2006.03806",
    ),
    AlgorithmSpec(
        "transductive-finetuning",
        f"{_HERE}.transductive_finetuning:TransductiveFinetuning",
        "lowers the entropy of the queries' predictions (transductive); trains nothing",
        "Dhillon et al. 2020",
        "https://arxiv.org/abs/1909.02729",
    ),
]
