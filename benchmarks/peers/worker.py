"""Run one contestant, on requests from standard input."""

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

#: Untimed pieces of work at the start, in which allocators and kernels warm up.
WARM_UP = 2


def main() -> None:
    """Serve one contestant until standard input ends.

    The only argument of the script is a JSON object with factory, arguments, threads, data and accuracy_episodes.
    """
    # Replies go to a copy of standard output, and prints of libraries to standard error, so that they do not mix.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    described = json.loads(sys.argv[1])
    torch.set_num_threads(described["threads"])
    try:
        contestant = _build(described)
        reply(replies, _introduction(contestant, described["accuracy_episodes"]))
    except Exception as error:  # a library may raise anything; report it to the driver
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
    """Return a contestant's check, accuracies and FLOP; warm up."""
    introduction: dict[str, Any] = {
        "check": contestant.check() if contestant.check else None,
        "accuracies": contestant.accuracies(accuracy_episodes) if contestant.accuracies else None,
        "flops": contestant.count_flops() if contestant.count_flops else None,
    }
    for _ in range(WARM_UP):
        contestant.work()
    return introduction


def work_for(contestant: Contestant, seconds: float) -> dict[str, float]:
    """Work for at least `seconds`; return work and time."""
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
