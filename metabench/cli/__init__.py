"""The command line; turns errors into exit codes."""

from __future__ import annotations

import os
import signal
import sys

import click

from metabench import __version__
from metabench.cli.compare import compare
from metabench.cli.data import data
from metabench.cli.leaderboard import leaderboard
from metabench.cli.listing import list_
from metabench.cli.plugin import plugin
from metabench.cli.report import report
from metabench.cli.run import run
from metabench.cli.validate import validate
from metabench.errors import MetabenchError

INTERRUPTED = 128 + signal.SIGINT


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="metabench")
def cli() -> None:
    """Benchmark few-shot learners on the same episodes, clock and statistics.

    \b
    Start here:  metabench run quickstart
    """


for command in (run, list_, validate, data, leaderboard, report, compare, plugin):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit with its code.

    0: success. 1: a cell failed, or `compare` found the candidate worse. 2: wrong input, where nothing was written, or
    a file or disk failed. 130: interrupted. Finished cells are kept in every case.
    """
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except MetabenchError as error:
        click.echo(f"metabench: {error}", err=True)
        code = 2
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("metabench: interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of standard output, e.g. `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a file or disk error without a more specific message
        click.echo(f"metabench: {error.filename or 'input or output'}: {error.strerror or error}", err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
