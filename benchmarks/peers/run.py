"""Compare metabench's speed with other libraries' on this machine.

python benchmarks/peers/run.py
python benchmarks/peers/run.py --only maml --rounds 11 --output peers.json

The peers are easyfsl, higher, learn2learn and a textbook MAML loop. The script makes a virtual environment with torch,
metabench from this checkout and the peers, once, in the folder of --environment. It prints one table. Omniglot comes
from METABENCH_DATA, as for metabench itself, or is downloaded.

All contestants of a line have the same network, weights, hyper-parameters and number of threads, and, in lines with
prepared data, the same episodes. Each contestant has its own process. Contestants take turns of a few seconds, in an
order that changes from round to round, while the others sleep; rates are compared within a round only. In lines with
data included, each library loads Omniglot in its own way, which is part of the measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from contest import Conditions, run_line
from environment import Environment, EnvironmentFailed, default_folder
from lines import Line, all_lines
from table import as_json, render_text


def main() -> int:
    """Run the comparison; return the exit code."""
    lines = all_lines()
    arguments = _parser([line.name for line in lines]).parse_args()
    environment = Environment((arguments.environment or default_folder()).expanduser().absolute())
    try:
        environment.prepare()
    except EnvironmentFailed as error:
        return _fail(str(error))
    conditions = Conditions(
        environment.python, environment.folder / "data", arguments.threads, arguments.seconds, arguments.rounds
    )
    if (problem := _prepare_data(conditions)) is not None:
        return _fail(f"the data cannot be prepared: {problem}")
    chosen = [line for line in lines if not arguments.only or line.name in arguments.only]
    facts = {
        "conditions": {
            **environment.versions(),
            "python": platform.python_version(),
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "seconds a turn": arguments.seconds,
        },
        "missing": environment.missing,
    }
    results = [run_line(line, conditions, _relevant(environment.missing, line)) for line in chosen]
    print(render_text(results, facts))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(as_json(results, facts), indent=2, ensure_ascii=False) + "\n")
    return 0


def _parser(names: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=_positive, default=3.0, help="duration of one turn (3)")
    parser.add_argument("--rounds", type=_count, default=7, help="turns of each contestant (7)")
    parser.add_argument("--only", action="append", choices=names, metavar="LINE", help=f"one of {', '.join(names)}")
    parser.add_argument("--threads", type=_count, default=_default_threads(), help="torch threads (all processors)")
    parser.add_argument("--environment", type=Path, metavar="DIR", help=f"its folder ({default_folder()})")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the result as JSON")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number greater than 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _default_threads() -> int:
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > 0:
        return int(threads)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare_data(conditions: Conditions) -> str | None:
    """Prepare the contestants' data; return an error message or None."""
    print("preparing the data", file=sys.stderr, flush=True)
    conditions.data.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("prepared.py")
    completed = subprocess.run(
        [conditions.python, script, conditions.data],
        env=conditions.environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if completed.returncode == 0:
        return None
    return (completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"])[-1]


def _relevant(missing: dict[str, str], line: Line) -> dict[str, str]:
    packages = {entrant.package for entrant in line.entrants}
    return {package: reason for package, reason in missing.items() if package in packages}


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
