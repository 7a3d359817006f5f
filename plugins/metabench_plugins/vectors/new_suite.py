"""Write a suite whose episodes fit the vectors found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metabench_plugins.images.new_suite import Shape, filled

_SUITE = """\
# metabench run FILE --profile smoke   seconds: does all of it work?
# metabench run FILE
# One method alone: --only algorithm=protonet
name: $label
description: $way-way episodes of vectors from files.

datasets:
  $label:
    use: features
    params: $params

backbones:
  identity: {}
  mlp: {params: {hidden: [128]}}

algorithms:
  # Heads, which read the vectors as they are.
  nearest-mean: {}
  logistic-regression: {}
  ridge: {}
  # Methods that train a small network.
  protonet:
    train: {way: $train_way, queries: $train_queries}
  classifier:
    params: {test_epochs: 100}
    train: {epochs: 60, batch: 64}
  simpleshot:
    weights: classifier

ways: [$way]
shots: $shots
queries: $queries
train: {steps: 1000, validate_every: 250, validation_episodes: 100}
eval: {episodes: 1000}

exclude:
  - {algorithm: nearest-mean, backbone: mlp}
  - {algorithm: logistic-regression, backbone: mlp}
  - {algorithm: ridge, backbone: mlp}
  - {algorithm: protonet, backbone: identity}
  - {algorithm: classifier, backbone: identity}
  - {algorithm: simpleshot, backbone: identity}

default_profile: full
profiles:
  smoke:
    train: {steps: 4, validate_every: 2, validation_episodes: 4}
    eval: {episodes: 20, inductive_episodes: 4}
    algorithms:
      classifier: {params: {test_epochs: 5}, train: {epochs: null, steps: 4, batch: 16}}
  full: {}
"""


def suite_text(name: str, params: Mapping[str, Any], shape: Shape) -> str:
    """Return a suite in YAML.

    Args:
        name: a name for the data, of any characters.
        params: parameters of the dataset `features`.
        shape: the episodes.
    """
    return filled(_SUITE, name, params, shape)
