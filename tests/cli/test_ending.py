"""The process ends, whatever threads and exit handlers plugins leave in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from command_line import Command, Distributions

THREAD = "threading.Thread(target=threading.Event().wait, name='uploader').start()"
HANDLER = "atexit.register(threading.Event().wait)"


@pytest.mark.parametrize(
    ("code", "left"), [(THREAD, "the thread uploader"), (HANDLER, "an exit handler")], ids=["thread", "exit handler"]
)
def test_a_thread_or_exit_handler_of_a_plugin_does_not_keep_the_process_alive(
    metabench: Command, distributions: Distributions, code: str, left: str
) -> None:
    distributions.add("lingering", f"import atexit, threading\n{code}\n")
    script = "from metabench.cli import ending; ending.EVENT_SECONDS = 0.3\nfrom metabench.cli import script; script()"
    path = os.pathsep.join(filter(None, [str(distributions.folder), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", script, "list", "algorithms"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False, timeout=60
    )
    assert done.returncode == 0
    assert "protonet" in done.stdout
    assert done.stderr == f"metabench: {left} of a plugin has not ended after 0.3 s: ended the process\n"
