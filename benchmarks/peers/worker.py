"""The process of one contestant: works when it is told to on standard input, and sleeps in between."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from contestants import Contestant

#: Pieces of work before the first that is timed: allocators and kernels warm up.
WARM_UP = 2


def main() -> None:
    """Serve one contestant, described by a JSON object in the only argument, until standard input ends."""
    # Replies have a file of their own: what libraries print must not come between them.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    described = json.loads(sys.argv[1])
    torch.set_num_threads(described["threads"])
    try:
        contestant = _build(described)
        reply(replies, _introduction(contestant, described["accuracy_episodes"]))
    except Exception as error:  # a library may raise anything: this contestant cannot take part
        lines = str(error).strip().splitlines()
        reply(replies, {"problem": f"{type(error).__name__}: {lines[0] if lines else ''}"})
        raise
    for line in sys.stdin:
        reply(replies, work_for(contestant, float(json.loads(line)["seconds"])))


def _build(described: dict[str, Any]) -> Contestant:
    module, function = described["factory"].split(":")
    factory = getattr(importlib.import_module(module), function)
    contestant: Contestant = factory(Path(described["data"]), **described["arguments"])
    return contestant


def _introduction(contestant: Contestant, accuracy_episodes: int) -> dict[str, Any]:
    """Return what the driver wants to know of a contestant; the checks come before any work."""
    known: dict[str, Any] = {
        "check": contestant.check() if contestant.check else None,
        "accuracies": contestant.accuracies(accuracy_episodes) if contestant.accuracies else None,
        "flops": contestant.count_flops() if contestant.count_flops else None,
    }
    for _ in range(WARM_UP):
        contestant.work()
    return known


def work_for(contestant: Contestant, seconds: float) -> dict[str, float]:
    """Work until the time is over, and tell how much was done in how many seconds."""
    gc.collect()
    done, start = 0, time.perf_counter()
    while True:
        done += contestant.work()
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return {"done": done, "seconds": elapsed}


def reply(replies: TextIO, answer: dict[str, Any]) -> None:
    """Send one line of JSON to the driver."""
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
