"""cluster/slurm.sh with Ray itself on one machine; srun and scontrol are stand-ins that run steps here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
CLUSTER = Path(__file__).parents[2] / "cluster"
JOB = 4_206_379
PORT = 26_379
SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
if [ "$1" = ray ]; then set -- "$@" --node-ip-address=127.0.0.1 --disable-usage-stats; fi
exec "$@"
"""
STUDY = """
import sys, ray
ray.init(sys.argv[sys.argv.index("--ray-address") + 1], log_to_driver=False)
print("nodes:", len([node for node in ray.nodes() if node["Alive"]]), *sys.argv[1:])
"""


def submit(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the batch script as Slurm does on the first node; what it leaves is ended, as Slurm does."""
    shutil.copytree(CLUSTER, folder / "cluster")
    environment = folder / "cluster" / "environment.sh"
    environment.write_text(environment.read_text().replace("EDIT-ME", str(folder)))
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "study.py").write_text(STUDY)
    programs = folder / "programs"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho 127.0.0.1\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(JOB), "SLURM_JOB_NODELIST": "n", "SLURM_CPUS_PER_TASK": "1"}
    with subprocess.Popen(
        ["bash", "cluster/slurm.sh", "study.py", "--trials", "3"],
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **job, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        printed = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                printed.append(line)
                if line.startswith(("nodes:", "error:")):
                    break
            status = process.wait(60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # Ray's own processes end with `ray start --block`
    return subprocess.CompletedProcess(process.args, status, "".join(printed))


def test_study_runs_when_all_nodes_are_there_beside_the_ray_of_another_job(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", 6379))
        other.listen()
        done = submit(tmp_path, SLURM_JOB_NUM_NODES="2")
    assert done.returncode == 0, done.stdout
    expected = f"nodes: 2 --ray-address 127.0.0.1:{PORT} --resume --trials 3"
    assert done.stdout.splitlines()[-1] == expected


def test_study_begins_without_a_node_whose_ray_does_not_start(tmp_path: Path) -> None:
    # The stand-in starts one Ray for each step, so that the third node never comes.
    done = submit(tmp_path, SLURM_JOB_NUM_NODES="3", DIRPRUNE_PATIENCE_S="10")
    assert done.returncode == 0, done.stdout
    said = re.search(r"warning: (\d) of 3 nodes have Ray; the study begins without the others", done.stdout)
    assert said is not None, done.stdout
    assert int(said[1]) in (1, 2)
    assert f"--ray-address 127.0.0.1:{PORT} --resume --trials 3" in done.stdout.splitlines()[-1]


def test_job_whose_ray_does_not_start_ends_without_a_study(tmp_path: Path) -> None:
    done = submit(tmp_path, SLURM_JOB_NUM_NODES="1", SLURM_CPUS_PER_TASK="none")
    assert done.returncode == 2, done.stdout
    assert "'none' is not a valid integer" in done.stdout
    assert done.stdout.splitlines()[-1] == "error: expected Ray on every node, on one it has ended; see above"
