"""What the algorithms that adapt weights share: a backbone and a linear layer with one output a class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from metabench.api import Algorithm, Setup, Weights, embed_queries


class LinearHead(Algorithm):
    """An algorithm whose `forward` is a classifier of the classes of one episode.

    Raises:
        ValueError: training episodes have another way than test episodes.
    """

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        if setup.train_way != setup.way:
            raise ValueError(
                f"train.way ({setup.train_way}) must be the tested way ({setup.way}): there is one output a class"
            )
        self.head = nn.Linear(setup.backbone.features, setup.way)

    def forward(self, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Return the [n, N] scores of [n, C, H, W] images, queries if their support set comes along."""
        features = self.backbone(x) if support_x is None else embed_queries(self.backbone, support_x, x)
        scores: Tensor = self.head(features)
        return scores


class UnderWeights:
    """A module as a function of its weights: `torch.func.functional_call`, prepared once for many calls.

    Finding each weight's place in the module again in every call takes 3 to 6 % of an inner loop's time
    (docs/performance.md). Buffers stay as they are, and inputs are given by position.

    Args:
        module: whose submodules and parameters stay where they are as long as this is used.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        # A weight that is shared has several places.
        places: dict[nn.Parameter, list[tuple[dict[str, Any], str]]] = {}
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    places.setdefault(parameter, []).append((part._parameters, name))
        self._places = {name: places[parameter] for name, parameter in module.named_parameters()}

    def __call__(self, weights: Weights, *inputs: Tensor | None) -> Tensor:
        """Return what the module makes of the inputs with these weights in place of its own of the same names.

        Raises:
            KeyError: a weight has the name of no parameter.
        """
        found = [(*place, weight) for name, weight in weights.items() for place in self._places[name]]
        own = [(parameters, name, parameters[name]) for parameters, name, _ in found]
        try:
            for parameters, name, weight in found:
                parameters[name] = weight
            output: Tensor = self._module(*inputs)
            return output
        finally:
            for parameters, name, weight in own:
                parameters[name] = weight
