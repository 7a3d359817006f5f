from __future__ import annotations

import torch
from metabench_protomaml.algorithm import ProtoMAML, ProtoMAMLConfig

from metabench.api import Classification, Episode, Setup, Support
from metabench.testing import AlgorithmChecks, SmallNetwork


class TestProtoMAML(AlgorithmChecks):
    algorithm = "protomaml"


def test_without_adaptation_it_is_a_prototypical_network() -> None:
    torch.manual_seed(0)
    network = SmallNetwork().double()
    algorithm = ProtoMAML(ProtoMAMLConfig(inner_lr=1e-12, test_inner_steps=1), Setup(network, 3, 3, 1)).eval()
    support, labels = torch.randn(6, 1, 20, 20, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    queries = torch.randn(4, 1, 20, 20, dtype=torch.float64)
    prototypes = torch.stack([network(support[labels == label]).mean(dim=0) for label in range(3)])
    distances = torch.cdist(network(queries), prototypes).square()
    scores = algorithm.answer(algorithm.adapt(Support(support, labels, Classification(3))), queries)
    torch.testing.assert_close(scores.log_softmax(-1), (-distances).log_softmax(-1), rtol=1e-6, atol=1e-8)


def test_the_second_derivatives_make_a_difference_to_the_gradient() -> None:
    gradients = []
    for first_order in (False, True):
        torch.manual_seed(0)
        config = ProtoMAMLConfig(inner_lr=0.1, first_order=first_order)
        algorithm = ProtoMAML(config, Setup(SmallNetwork(), 2, 2, 1)).train()
        support, labels = torch.randn(4, 1, 20, 20), torch.tensor([0, 1, 0, 1])
        queries = torch.randn(4, 1, 20, 20)
        algorithm.episode_loss(Episode(Support(support, labels, Classification(2)), queries, labels)).backward()
        gradients.append(algorithm.backbone.first.weight.grad)
    assert not torch.allclose(gradients[0], gradients[1])
