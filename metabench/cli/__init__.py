"""The command line; turns errors into exit codes."""

from __future__ import annotations

import io
import signal
import sys

import click

from metabench import __version__
from metabench.cli.cancel import cancel
from metabench.cli.compare import compare
from metabench.cli.data import data
from metabench.cli.ending import end_soon
from metabench.cli.episodes import episodes
from metabench.cli.export import export
from metabench.cli.history import history
from metabench.cli.import_ import import_
from metabench.cli.invalidate import invalidate
from metabench.cli.leaderboard import leaderboard
from metabench.cli.listing import list_
from metabench.cli.merge import merge
from metabench.cli.plugin import plugin
from metabench.cli.predict import predict
from metabench.cli.report import report
from metabench.cli.run import run
from metabench.cli.schema import schema
from metabench.cli.score import score
from metabench.cli.site import site
from metabench.cli.status import status
from metabench.cli.streams import lasting_streams, say
from metabench.cli.tune import tune
from metabench.cli.validate import validate
from metabench.cli.verify import verify
from metabench.errors import MetabenchError

INTERRUPTED = 128 + signal.SIGINT


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="metabench")
def cli() -> None:
    """Benchmark few-shot learners on the same episodes, clock and statistics.

    \b
    Start here:  metabench run quickstart
    """


for command in (
    *(
        run,
        status,
        cancel,
        merge,
        tune,
        list_,
        validate,
        data,
        leaderboard,
        report,
        site,
        compare,
        history,
        score,
        invalidate,
    ),
    *(predict, export, episodes, import_, schema, plugin),
    verify,
):
    cli.add_command(command)


def script() -> None:
    """Run `main` as a process of its own, which ends even where threads or exit handlers of a plugin do not."""
    try:
        main()
    except SystemExit as ending:
        end_soon(ending.code if isinstance(ending.code, int) else 1)
        raise


def main() -> None:
    """Run the command line and exit with its code.

    0: success. 1: a cell failed or is invalid, or `compare` found the candidate worse, or `verify` that figures do not
    hold. 2: wrong input, where nothing was written, or a file, disk or standard output failed. 130: interrupted.
    Finished cells are kept in every case.
    """
    with lasting_streams() as output:
        code = _run()
        sys.stdout.flush()
        if output.problem is not None:
            say(f"metabench: cannot write to standard output: {output.problem.strerror}", err=True)
            code = code or 2
    sys.exit(code)


def _run() -> int:
    """Run the command; print its error. Returns the exit code."""
    try:
        code = cli.main(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except MetabenchError as error:
        say(f"metabench: {error}", err=True)
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        say(text.getvalue(), err=True, end="")
    except (KeyboardInterrupt, click.Abort):
        say("metabench: interrupted", err=True)
        return INTERRUPTED
    except OSError as error:  # a file or disk error without a more specific message
        say(f"metabench: {error.filename or 'input or output'}: {error.strerror or error}", err=True)
    return 2
