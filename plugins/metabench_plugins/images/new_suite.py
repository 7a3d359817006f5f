"""Write a suite whose episodes fit the images found."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

import yaml

from metabench.api import DataError

#: Images from classes to sizes, by split.
Counts = Mapping[str, Mapping[str, int]]

_MOST_WAYS, _MOST_QUERIES = 5, 15
_SHOTS = (1, 5)
#: Fewest queries of a class beside five support images; with fewer, the suite has 1-shot only.
_FEWEST_QUERIES = 3
#: Share of the classes of a split that must have enough images for an episode.
_DRAWN = 0.8


_SUITE = """\
# metabench run FILE --profile smoke   seconds: does all of it work?
# metabench run FILE                   small images and short trainings, the profile quick
# metabench run FILE --profile large   84 pixels and short trainings
# metabench run FILE --profile full    84 pixels and long trainings
# One method alone: --only algorithm=protonet
name: $label
description: $way-way episodes of one's own images.

datasets:
  $label:
    use: folder
    params: $params

backbones:
  conv4: {params: {channels: 64}}

algorithms:
  protonet:
    train: {way: $train_way, queries: $train_queries}
  matchingnet:
    params: {scale: 10}
    train: {way: $train_way, queries: $train_queries}
  maml:
    # Finn et al. 2017 on miniImageNet: 32 channels, 5 inner steps, 10 at test; 4 tasks an outer step in 1-shot. Their
    # inner rate of 0.01 is of a sum over the classes.
    params: {inner_lr: $inner_lr, inner_steps: 5, test_inner_steps: 10}
    backbone: {norm: batch, channels: 32}
    train: {queries: $train_queries, meta_batch: 4}
  classifier:
    train: {epochs: 100}
  simpleshot:
    weights: classifier

ways: [$way]
shots: $shots
queries: $queries
train:
  steps: 10000
  validate_every: 500
  validation_episodes: 100
  augment: [{crop: {padding: 8}}, {flip: {}}]
eval: {episodes: 600}

default_profile: quick
profiles:
  smoke:
    datasets: {$label: {params: {image_size: 32}}}
    backbones: {conv4: {params: {channels: 8}}}
    train: {validate_every: 3, validation_episodes: 4, augment: [{crop: {padding: 4}}]}
    eval: {episodes: 20, inductive_episodes: 4}
    algorithms:
      protonet: {train: {steps: 4}}
      matchingnet: {train: {steps: 4}}
      maml:
        params: {inner_steps: 1, test_inner_steps: 2}
        backbone: {channels: 8}
        train: {steps: 3, meta_batch: 2}
      classifier: {params: {test_epochs: 5}, train: {epochs: null, steps: 4, batch: 16}}
  quick:
    datasets: {$label: {params: {image_size: 32}}}
    backbones: {conv4: {params: {channels: 32}}}
    train: {augment: [{crop: {padding: 4}}, {flip: {}}]}
    algorithms:
      protonet: {train: {steps: 1500}}
      matchingnet: {train: {steps: 1500}}
      maml:
        params: {inner_steps: 3, test_inner_steps: 5}
        train: {steps: 1000}
      classifier: {train: {epochs: 30}}
  large:
    backbones: {conv4: {params: {channels: 32}}}
    algorithms:
      protonet: {train: {steps: 1500}}
      matchingnet: {train: {steps: 1500}}
      maml:
        params: {inner_steps: 3, test_inner_steps: 5}
        train: {steps: 300, validate_every: 100}
      classifier: {train: {epochs: 30}}
  full: {}
"""


@dataclass(frozen=True)
class Shape:
    """Episodes that every split can give.

    Attributes:
        way: classes of an episode.
        shots: support images of each class.
        queries: query images of each class.
        train_way: classes of a training episode of methods that gain by many.
        train_queries: query images of each class of those.
    """

    way: int
    shots: Sequence[int]
    queries: int
    train_way: int
    train_queries: int


def fitting_shape(splits: Counts) -> Shape:
    """Return the shape of episodes for splits.

    Args:
        splits: the number of images of each class, by split.

    Raises:
        DataError: a split has one class, or classes of one image.
    """
    for split, classes in splits.items():
        if len(classes) < 2:
            raise DataError(f"{split} has one class, and an episode needs two to tell apart: add classes")
    way = min(_MOST_WAYS, *map(len, splits.values()))
    room = min(_room(list(classes.values()), way) for classes in splits.values())
    if room < 2:
        raise DataError(
            "most classes of a split have one image, and an episode needs a support image and a query of each: add "
            "images"
        )
    shots = [shot for shot in _SHOTS if shot == 1 or room - shot >= _FEWEST_QUERIES]
    queries = min(_MOST_QUERIES, room - shots[-1])
    of_train = sorted(splits["train"].values(), reverse=True)
    train_queries = min(5, queries)
    train_way = min(20, sum(count >= shots[-1] + train_queries for count in of_train))
    return Shape(way, shots, queries, max(way, train_way), train_queries)


def suite_text(name: str, params: Mapping[str, Any], shape: Shape) -> str:
    """Return a suite in YAML.

    Args:
        name: a name for the data, of any characters.
        params: parameters of the dataset `folder`.
        shape: the episodes.
    """
    return filled(_SUITE, name, {**params, "image_size": 84}, shape)


def filled(template: str, name: str, params: Mapping[str, Any], shape: Shape) -> str:
    """Return a template of a suite with a label, parameters of the dataset, and the shape of its episodes.

    Args:
        template: YAML with the fields ``$label``, ``$params`` and the fields of the shape.
        name: a name for the data, of any characters.
        params: the parameters.
        shape: the episodes.
    """
    label = re.sub(r"[^a-z0-9]+", "-", _ascii(name).lower()).strip("-")[:40] or "images"
    values = {
        "label": json.dumps(label),  # a name of digits is text
        "params": _flow(params),
        "way": shape.way,
        "inner_lr": shape.way / 100,
        "shots": list(shape.shots),
        "queries": shape.queries,
        "train_way": shape.train_way,
        "train_queries": shape.train_queries,
    }
    return Template(template).substitute(values)


def _flow(params: Mapping[str, Any]) -> str:
    """Return parameters as YAML in one line."""
    text = yaml.safe_dump(
        dict(params), default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    )
    return text.strip()


def _room(counts: Sequence[int], way: int) -> int:
    """Return the number of images that enough classes of a split have for an episode."""
    ordered = sorted(counts, reverse=True)
    return ordered[max(way, round(_DRAWN * len(ordered))) - 1]


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
