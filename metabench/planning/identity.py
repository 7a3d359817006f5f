"""The version of what the core computes."""

from __future__ import annotations

#: Version of the core's results. The core's code is not hashed, or each of its commits would end long trainings: raise
#: this number with every change of the core that changes accuracies. `tests/planning/test_identity.py` pins hashes of
#: cells, episodes and accuracies. 1: metabench 0.1. 2: episodes seeded by names of classes, draws by episode.
#: 3: validation episodes seeded by `train.validation_seed`; draws to adapt and to answer apart.
IDENTITY_VERSION = 4
