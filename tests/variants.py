"""The built-in algorithms with parameters that make them quick."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from torch import Tensor

from metabench.api import Algorithm, Episodes
from metabench_plugins.algorithms.anil import ANIL
from metabench_plugins.algorithms.dkt import DKT
from metabench_plugins.algorithms.feat import FEAT
from metabench_plugins.algorithms.maml import MAML
from metabench_plugins.algorithms.matchingnet import MatchingNet
from metabench_plugins.algorithms.meta_baseline import MetaBaseline
from metabench_plugins.algorithms.metasgd import MetaSGD
from metabench_plugins.algorithms.protomaml import ProtoMAML
from metabench_plugins.algorithms.protonet import ProtoNet
from metabench_plugins.algorithms.r2d2 import R2D2
from metabench_plugins.algorithms.relationnet import RelationNet
from metabench_plugins.algorithms.reptile import Reptile
from metabench_plugins.algorithms.siamese import Siamese

ALGORITHMS = (
    MAML,
    ANIL,
    MetaSGD,
    ProtoMAML,
    Reptile,
    ProtoNet,
    MatchingNet,
    Siamese,
    R2D2,
    DKT,
    RelationNet,
    MetaBaseline,
    FEAT,
)


@dataclass(frozen=True)
class Variant:
    """An algorithm with parameters that make it quick."""

    name: str
    algorithm: type[Algorithm]
    params: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


REPTILE = {"inner_lr": 0.01, "inner_steps": 2, "inner_batch": 5, "test_inner_steps": 3, "test_inner_batch": 4}
VARIANTS = (
    Variant("maml", MAML, {"inner_lr": 0.4, "test_inner_steps": 2}),
    Variant("maml-first-order", MAML, {"inner_lr": 0.4, "test_inner_steps": 2, "first_order": True}),
    Variant("anil", ANIL, {"inner_lr": 0.4, "inner_steps": 2}),
    Variant("metasgd", MetaSGD, {"highest_rate": 0.8, "test_inner_steps": 2}),
    Variant("protomaml", ProtoMAML, {"inner_lr": 0.1, "inner_steps": 2, "test_inner_steps": 3, "first_order": False}),
    Variant("protomaml-first-order", ProtoMAML, {"inner_lr": 0.1, "inner_steps": 2, "test_inner_steps": 3}),
    Variant("reptile", Reptile, REPTILE),
    Variant("reptile-transductive", Reptile, {**REPTILE, "transductive": True}),
    Variant("protonet", ProtoNet),
    Variant("matchingnet", MatchingNet, {"scale": 10.0}),
    Variant("matchingnet-fce", MatchingNet, {"scale": 100.0, "fce": True, "fce_steps": 2}),
    Variant("siamese", Siamese, {"pairs": 8}),
    Variant("r2d2", R2D2, {"scale": 10.0, "ridge": 1.0}),
    Variant("metaoptnet-rr", R2D2, {"scale": 1.0, "learn_ridge": False, "ridge_of": "sum", "intercept": False}),
    Variant("relationnet", RelationNet, {"channels": 8, "lr": 0.05}),
    Variant("meta-baseline", MetaBaseline),
    Variant("feat", FEAT, {"temperature": 4.0, "dropout": 0.0, "attention_dropout": 0.0}),
    Variant("dkt", DKT),
    Variant("dkt-linear", DKT, {"kernel": "linear"}),
)

every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)
every_norm = pytest.mark.parametrize("norm", ["running", "batch", "support"])


def reordered(episodes: Episodes, order: Tensor) -> Episodes:
    """Return the episodes with their support images in another order."""
    return replace(episodes, support_x=episodes.support_x[:, order], support_y=episodes.support_y[:, order])
