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
        differs=("fits the support set as it is; `rfs` fits distorted copies of it",),
    ),
    AlgorithmSpec(
        "ridge",
        f"{_HERE}.ridge:Ridge",
        "regresses labels on the features of each support set, in closed form; trains nothing",
        "Bertinetto et al. 2019",
        "https://arxiv.org/abs/1805.08136",
        differs=("λ is fixed, not learnt, and no network is trained through the solution",),
    ),
    AlgorithmSpec(
        "finetuning",
        f"{_HERE}.finetuning:Finetuning",
        "trains a cosine classifier of features for each episode, from class means on",
        "Chen et al. 2019",
        "https://arxiv.org/abs/1904.04232",
        differs=(
            "begins with the class means, as easyfsl's `Finetune`, not at random; `classifier-cosine` is the paper's",
        ),
    ),
    AlgorithmSpec(
        "tip-adapter",
        f"{_HERE}.tip_adapter:TipAdapter",
        "adds up the similarities to support images, of features or of distorted views; trains nothing",
        "Zhang et al. 2022",
        "https://arxiv.org/abs/2207.09519",
        differs=(
            "there is no text encoder: no zero-shot scores, or those of class means (`zero_shot: means`)",
            "α and β are fixed, not searched",
        ),
    ),
    AlgorithmSpec(
        "bd-cspn",
        f"{_HERE}.bd_cspn:BDCSPN",
        "rectifies class means by the queries (transductive); trains nothing",
        "Liu et al. 2020",
        "https://arxiv.org/abs/1911.10713",
        differs=(
            "all queries have pseudo-labels, weighted by the exponential of the cosine",
            "queries are answered where they are, before they are moved",
        ),
    ),
    AlgorithmSpec(
        "laplacianshot",
        f"{_HERE}.laplacianshot:LaplacianShot",
        "assigns neighbouring queries to one class (transductive); trains nothing",
        "Ziko et al. 2020",
        "https://arxiv.org/abs/2006.15486",
        differs=(
            "λ is the same for all shots, not chosen on validation classes",
            "all updates are made",
        ),
    ),
    AlgorithmSpec(
        "tim",
        f"{_HERE}.tim:TIM",
        "maximises what predictions tell of the queries (transductive); trains nothing",
        "Boudiaf et al. 2020",
        "https://arxiv.org/abs/2008.11297",
        differs=("classes are scored by cosine; the authors' code scores by squared distance",),
    ),
    AlgorithmSpec(
        "pt-map",
        f"{_HERE}.pt_map:PTMAP",
        "assigns queries to classes in equal numbers by optimal transport (transductive); trains nothing",
        "Hu et al. 2020",
        "https://arxiv.org/abs/2006.03806",
        differs=(
            "Sinkhorn's iterations begin where those of the last round ended, and are a fixed number",
            "fewer queries than classes are not balanced",
        ),
    ),
    AlgorithmSpec(
        "transductive-finetuning",
        f"{_HERE}.transductive_finetuning:TransductiveFinetuning",
        "lowers the entropy of the queries' predictions (transductive); trains nothing",
        "Dhillon et al. 2020",
        "https://arxiv.org/abs/1909.02729",
        differs=("the network stays as it is: class means move, and score by distance",),
    ),
]
