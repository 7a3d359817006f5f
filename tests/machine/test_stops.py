from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

STOPPING = """
    import os, signal, subprocess, sys, time
    import torch
    from metabench.machine.clock import Stopwatch
    from metabench.machine.stops import watch_stops

    watch_stops()
    watch = Stopwatch(torch.device("cpu"))
    begun = time.perf_counter()
    with watch.running():
        waking = ["import os, signal, time; time.sleep(1.5); os.kill(%d, signal.SIGCONT)" % os.getpid()]
        subprocess.Popen([sys.executable, "-c", *waking])
        os.kill(os.getpid(), signal.SIGSTOP)
    print(watch.seconds, time.perf_counter() - begun)
    """


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="this system has no sigtimedwait")
def test_a_stopwatch_does_not_count_the_time_that_the_process_is_stopped() -> None:
    command = [sys.executable, "-c", textwrap.dedent(STOPPING)]
    counted, whole = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert whole >= 1.5
    assert counted < whole - 1
