"""cluster/local.sh: studies and jobs run on its Ray with its token, nobody without it, and only from here."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from dirprune.records.folder import StudyFolder
from dirprune.tuning import storage

ROOT = Path(__file__).parents[2]
OPTIONS = ["--warm-starts", "0", "--epochs", "1", "--dense-epochs", "2", "--no-tracking"]
PATIENCE_S = 300.0
USUAL_PORTS = (8265, 52365)  # of a dashboard, and of what takes jobs, unless they are told others
ENDED = {"COMPLETE", "PRUNED"}
ENVIRONMENT = {
    **os.environ,
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a" * 64,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
}
STRANGER = {**ENVIRONMENT, "RAY_AUTH_TOKEN": "b" * 64}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def another_ray_is_here() -> Iterator[None]:
    """Hold the ports at which another Ray would listen, if none has them already."""
    with ExitStack() as held:
        for port in USUAL_PORTS:
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


@contextmanager
def local_ray(folder: Path, *ports: int) -> Iterator[None]:
    """Run cluster/local.sh until it listens at all ports, and end it."""
    command = ["bash", str(ROOT / "cluster" / "local.sh"), *map(str, ports)]
    with (folder / "ray.log").open("w") as log:
        ray = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    try:
        for port in ports:
            wait_until_it_listens(port, ray)
        yield
    finally:
        os.killpg(ray.pid, signal.SIGTERM)
        ray.wait(60)


def run(environment: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder."""
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_what_local_sh_cannot_use_is_said_in_one_line(tmp_path: Path) -> None:
    (port,) = find_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        for given, expected in {
            ("--help",): "expected cluster/local.sh [PORT [DASHBOARD_PORT]], got '--help'",
            (str(port),): f"something listens at port {port} already",
            (str(find_ports(1)[0]), str(port)): f"something listens at port {port} already",
        }.items():
            refused = run({**os.environ, "HOME": str(tmp_path)}, "bash", "cluster/local.sh", *given)
            assert refused.returncode == 2
            assert refused.stderr.startswith(f"error: {expected}")
            assert len((refused.stdout + refused.stderr).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_token_that_local_sh_makes_is_for_its_user_alone(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    makes = (
        'mkdir -p "$HOME/.ray" && echo secret > "$HOME/.ray/auth_token"'  # as Ray does, by the umask alone
    )
    (programs / "ray").write_text(f'#!/bin/sh\n[ "$1" != get-auth-token ] || {{ {makes}; }}\n')
    (programs / "ray").chmod(0o755)
    shutil.copytree(ROOT / "cluster", tmp_path / "cluster")
    kept = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    settings = {"HOME": str(tmp_path), "PATH": f"{programs}:{ENVIRONMENT['PATH']}"}
    (port,) = find_ports(1)
    run({**kept, **settings}, "bash", str(tmp_path / "cluster" / "local.sh"), str(port))
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o077 == 0


def test_a_study_runs_on_the_ray_of_local_sh_which_keeps_to_localhost(tmp_path: Path) -> None:
    (port,) = find_ports(1)
    with another_ray_is_here(), local_ray(tmp_path, port):
        study = [sys.executable, "studies/lenet.py", "--ray-address", f"127.0.0.1:{port}", "--trials", "3"]
        options = [*OPTIONS, "--output", str(tmp_path / "output")]
        with ThreadPoolExecutor() as at_once:
            other = at_once.submit(run, STRANGER, *study, "--name", "other", *options)
            done, refused = run(ENVIRONMENT, *study, *options), other.result()
            unasked = run({**ENVIRONMENT, "RAY_AUTH_MODE": ""}, *study, "--name", "unasked", *options)
        assert done.returncode == 0, done.stderr
        assert "Pareto front:" in done.stdout
        assert refused.returncode == 2
        there = f"error: expected a Ray cluster at '127.0.0.1:{port}', the one there"
        hint = "RAY_AUTH_TOKEN, else ~/.ray/auth_token, must hold its token"
        assert refused.stderr == f"{there} refuses this token; {hint}\n"
        assert unasked.returncode == 2
        assert unasked.stderr == f"{there} asks for a token; try RAY_AUTH_MODE=token\n"
        assert reachable_from_outside(port) is False
        assert "ERROR" not in (tmp_path / "ray.log").read_text()


@pytest.mark.skipif(
    importlib.util.find_spec("aiohttp_cors") is None, reason="no ray[default] here, which jobs need"
)
def test_a_job_runs_with_the_token_alone_and_goes_on_when_it_is_cut_off_and_submitted_again(
    tmp_path: Path,
) -> None:
    port, dashboard_port = find_ports(2)
    address = ["--address", f"http://127.0.0.1:{dashboard_port}"]
    submit = ["ray", "job", "submit", *address]
    study = ["--working-dir", ".", "--", "python", "studies/lenet.py", *OPTIONS]
    output = ["--output", str(tmp_path / "output")]
    folder = StudyFolder(tmp_path / "output" / "lenet")
    with another_ray_is_here(), local_ray(tmp_path, port, dashboard_port):
        refused = run(STRANGER, *submit, *study, *output, "--trials", "2")
        assert refused.returncode != 0
        assert "Invalid authentication token" in refused.stdout + refused.stderr
        with pytest.raises(urllib.error.HTTPError) as nobody:
            urllib.request.urlopen(post_job(dashboard_port, f"touch {tmp_path / 'done'}"), timeout=PATIENCE_S)
        assert nobody.value.code == 401
        nobody.value.close()
        assert not folder.root.exists()
        job = ["--submission-id", "cut", "--no-wait"]
        submit_as_soon_as_jobs_are_taken(*submit, *job, *study, *output, "--resume", "--trials", "1000")
        wait_until_it_has_ended(folder, n_trials=2)
        run_with_token("ray", "job", "stop", *address, "cut")
        before = storage.read_records(folder)
        ended = {record.number: record.ended_at for record in before if record.state in ENDED}
        assert len(ended) >= 2
        n_trials = len(before) + 1
        assert n_trials < 1000
        said = run_with_token(*submit, *study, *output, "--resume", "--trials", str(n_trials))
        assert "Pareto front:" in said
        records = storage.read_records(folder)
        assert [record.number for record in records] == list(range(n_trials))
        assert {record.state for record in records} <= ENDED
        assert {record.number: record.ended_at for record in records}.items() >= ended.items()
        assert not (tmp_path / "done").exists()
        assert reachable_from_outside(dashboard_port) is False


def run_with_token(*command: str) -> str:
    """Run a command that must end well, and return what it prints."""
    done = run(ENVIRONMENT, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submit_as_soon_as_jobs_are_taken(*command: str) -> None:
    """Submit a job; Ray refuses some for a while after it has come up."""
    end = time.monotonic() + PATIENCE_S
    while (done := run(ENVIRONMENT, *command)).returncode != 0:
        said = done.stdout + done.stderr
        assert "No available agent to submit job, please try again later" in said, said
        assert time.monotonic() < end, said


def wait_until_it_has_ended(folder: StudyFolder, n_trials: int) -> None:
    """Return when so many trials of a study have ended."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        records = storage.read_records(folder) if folder.study_json.exists() else []
        if sum(record.state in ENDED for record in records) >= n_trials:
            return
        time.sleep(0.3)
    pytest.fail("the study did not come under way")


def post_job(port: int, entrypoint: str) -> urllib.request.Request:
    """Return a request that submits a job as whoever finds the port would, without any token."""
    return urllib.request.Request(
        f"http://127.0.0.1:{port}/api/jobs/",
        json.dumps({"entrypoint": entrypoint}).encode(),
        {"Content-Type": "application/json"},
    )


def find_ports(n_ports: int) -> list[int]:
    """Return free ports of this machine."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(n_ports)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_until_it_listens(port: int, process: subprocess.Popen) -> None:
    """Return when something listens at a port."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail("Ray did not come up")


def reachable_from_outside(port: int) -> bool:
    """Return whether the port answers at an address of this machine that is not the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return False  # no network at all
        address = probe.getsockname()[0]
    try:
        socket.create_connection((address, port), 2).close()
    except OSError:
        return False
    return True
