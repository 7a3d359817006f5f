"""The script of the SLURM page stops at its time limit, and is started again."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from slurm_cluster import running_cluster, wait_until, why_not

PAGE = Path(__file__).parent.parent / "docs" / "slurm.md"
#: Stands in for the command: says when it is started and stopped.
STAND_IN = """\
#!/bin/sh
echo started >> said
trap 'echo stopped >> said; exit 130' TERM
while :; do sleep 0.1; done
"""


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_the_script_for_one_node_is_queued_again_before_its_time_limit(tmp_path: Path) -> None:
    (script,) = re.findall(r"^(#!/bin/bash\n.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert len(script.splitlines()) == 8
    (tmp_path / "job.sh").write_text(script)
    (tmp_path / "metabench").write_text(STAND_IN)
    (tmp_path / "metabench").chmod(0o755)
    said = tmp_path / "said"
    with running_cluster(tmp_path / "cluster", cpus=16, gpus=4) as cluster:
        cluster.environment["PATH"] = f"{tmp_path}{os.pathsep}{cluster.environment['PATH']}"
        number = cluster.call("sbatch", f"--chdir={tmp_path}", "--parsable", str(tmp_path / "job.sh")).strip()
        wait_until(said.exists, "the command is started", 120)
        cluster.call("scancel", "--signal=USR1", "--batch", number)
        asked = ("scontrol", "show", "job", number)
        wait_until(lambda: "Restarts=1" in cluster.call(*asked), "the job is queued again", 120)
        wait_until(lambda: "JobState=PENDING" in cluster.call(*asked), "the job has ended", 120)
        cluster.call("scontrol", "update", f"jobid={number}", "StartTime=now")
        wait_until(lambda: said.read_text().split() == ["started", "stopped", "started"], "it goes on", 120)
