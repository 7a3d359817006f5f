"""Compare trained methods with second implementations of them, from the same weights on the same episodes.

python benchmarks/peers/trainings.py
python benchmarks/peers/trainings.py --only protonet --seeds 0 --updates 200 --output trainings.json

metabench's ProtoNet and MAML train beside plain loops around easyfsl's ProtoNet and learn2learn's MAML, on 5-way 1-shot
Omniglot (`trainings.yaml`). The script compares the first losses in float64 and in float32, and the test accuracies of
the last weights on the same test episodes. The environment is that of `run.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from agreement import Agreement, render
from environment import Environment, EnvironmentFailed, default_folder

#: The peer of each method.
PEERS = {"protonet": "easyfsl", "maml": "learn2learn"}
#: Number of losses compared in float64, from the start of a training.
EXACT_LOSSES = 100


class TrainingFailed(Exception):
    """The process of a training failed."""


def main() -> int:
    """Run the comparison; return the exit code."""
    arguments = _parser().parse_args()
    environment = Environment((arguments.environment or default_folder()).expanduser().absolute())
    methods = arguments.only or list(PEERS)
    try:
        environment.prepare()
        missing = [f"{PEERS[method]}: {environment.missing[PEERS[method]]}" for method in methods
                   if PEERS[method] in environment.missing]  # fmt: skip
        if missing:
            return _fail("; ".join(missing))
        agreements = []
        for method in methods:
            exact = trained(environment, method, 0, "float64", min(EXACT_LOSSES, arguments.updates), 0)
            agreement = Agreement(method, PEERS[method], exact["losses"])
            agreements.append(agreement)
            for seed in arguments.seeds:
                agreement.add(
                    seed, trained(environment, method, seed, "float32", arguments.updates, arguments.episodes)
                )
                _write(arguments.output, environment, arguments, agreements)
    except (EnvironmentFailed, TrainingFailed) as error:
        return _fail(str(error))
    print("\n\n".join(render(agreement) for agreement in agreements))
    return 0


def trained(
    environment: Environment, method: str, seed: int, dtype: str, updates: int, episodes: int
) -> dict[str, Any]:
    """Train both sides in a process of the environment; return losses and accuracies of each.

    Raises:
        TrainingFailed: the process failed; its own output says why.
    """
    print(f"{method}, seed {seed}, {dtype}: {updates} updates", file=sys.stderr, flush=True)
    script = Path(__file__).with_name("paired_training.py")
    command = [environment.python, script, method, str(seed), dtype, str(updates), str(episodes)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode != 0:
        raise TrainingFailed(f"the training of {method} with seed {seed} ended with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PEERS, metavar="METHOD", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--seeds", type=int, nargs="+", choices=range(3), default=[0, 1, 2], help="0 1 2")
    parser.add_argument("--updates", type=int, default=2000, help="outer updates of a training (2000)")
    parser.add_argument("--episodes", type=int, default=600, help="test episodes (600)")
    parser.add_argument("--environment", type=Path, metavar="DIR", help=f"its folder ({default_folder()})")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the result as JSON")
    return parser


def _write(
    output: Path | None, environment: Environment, arguments: argparse.Namespace, agreements: list[Agreement]
) -> None:
    if output is None:
        return
    facts = {**environment.versions(), "updates": arguments.updates, "episodes": arguments.episodes}
    content = {"conditions": facts, "methods": [agreement.as_json() for agreement in agreements]}
    output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
