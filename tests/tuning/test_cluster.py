"""A local Ray is private: every listener on localhost, and a token that only its own processes know."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dirprune.errors import ConfigurationError
from dirprune.tuning.cluster import Resources, Slots, _fit, check

LISTENERS = """
import contextlib, ipaddress, os, pathlib, signal, sys, time
import psutil
if sys.argv[1] == "ray is there already":
    import ray
from dirprune.tuning.cluster import Resources, connect
signal.signal(signal.SIGTERM, signal.default_int_handler)
with connect(Resources()) as slots:
    import ray
    time.sleep(3)  # in which Ray would start a process for each core, if it were not told otherwise
    running = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            running.append(" ".join(each.cmdline()[:3]))
    idle = ("ray::IDLE", "default_worker.py", "dashboard.py", "monitor.py")  # log_monitor.py, too
    assert not [each for each in running if any(name in each for name in idle)], running
    logs = pathlib.Path(ray._private.worker._global_node.get_logs_dir_path())
    assert "Traceback" not in (logs / "dashboard_agent.log").read_text(), "the agent misses something"
    ray.get(ray.remote(lambda: 1).remote())
    me = psutil.Process()
    addresses = {
        connection.laddr.ip
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    print(len(addresses), sorted(addresses))
    def is_loopback(text):
        address = ipaddress.ip_address(text)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    assert addresses and all(map(is_loopback, addresses)), addresses
    assert slots.n_trials >= 1
    assert signal.getsignal(signal.SIGTERM) == signal.default_int_handler
    assert os.environ["RAY_AUTH_MODE"] == "token"
print("private")
"""


@pytest.mark.parametrize(
    "when", [pytest.param("ray is imported here", marks=pytest.mark.slow), "ray is there already"]
)
def test_local_ray_listens_on_localhost_only(when, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS, when],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert "private" in done.stdout
    assert not list(tmp_path.glob(".ray/*")), "no token is left in the user's home"


@pytest.mark.slow
def test_a_local_ray_that_does_not_start_is_one_line(tmp_path):
    too_long = tmp_path / ("d" * 100)
    too_long.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).parents[1] / "integration/toy_study.py",
            "--trials",
            "1",
            "--no-tracking",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "RAY_TMPDIR": str(too_long)},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: expected Ray to start on this machine, it did not (")
    assert done.stderr.count("\n") == 1


def test_trials_at_once_are_what_fits():
    available = [{"CPU": 8.0, "GPU": 2.0}]
    assert _fit(Resources(), available).n_trials == 2  # one GPU each
    assert _fit(Resources(gpus_per_trial=0), available).n_trials == 8
    assert _fit(Resources(gpus_per_trial=0.25), available).n_trials == 8
    assert _fit(Resources(cpus_per_trial=3, gpus_per_trial=0), available).n_trials == 2
    assert _fit(Resources(gpus_per_trial=0, max_concurrent=3), available).n_trials == 3
    assert _fit(Resources(), [{"CPU": 4.0}]).bundle == {"CPU": 1.0}


def test_trials_fit_where_all_of_their_resources_are():
    nodes = [{"CPU": 16.0, "memory": 2.0**33}, {"CPU": 4.0, "memory": 2.0**32, "A100": 1.0}]
    assert _fit(Resources(further_per_trial={"A100": 0.5}), nodes).n_trials == 2
    assert _fit(Resources(cpus_per_trial=3, further_per_trial={"A100": 0.5}), nodes).n_trials == 1
    assert _fit(Resources(further_per_trial={"memory": 2.0**31}), nodes).n_trials == 6
    slots = _fit(Resources(cpus_per_trial=2, workers_per_trial=2, further_per_trial={"A100": 1}), nodes)
    assert slots == Slots(1, {"CPU": 1.0, "A100": 0.5}, 2)
    with pytest.raises(ConfigurationError, match=r"memory=16GiB, the nodes .*memory=8GiB; .*memory=4GiB"):
        _fit(Resources(further_per_trial={"memory": 2.0**34}), nodes)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("token", "refuses this token; RAY_AUTH_TOKEN, else ~/.ray/auth_token, must hold its token"),
        ("disabled", "asks for a token; try RAY_AUTH_MODE=token"),
    ],
)
def test_cluster_with_another_token_is_one_line_that_says_so(mode, said, monkeypatch, capfd):
    def refuse(**_given):
        for _ in range(3):
            os.write(2, b"gcs_client.cc:210: RPC error: InvalidAuthToken: token is missing or incorrect\n")
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setattr("ray.init", refuse)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=re.escape(f"at '{address}', the one there {said}")):
            check(Resources(address=address))
    os.write(2, b"heard again\n")
    assert capfd.readouterr().err == "heard again\n"


def test_address_at_which_nothing_answers_is_found_within_seconds():
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match="nothing answers there"):
        check(Resources("127.0.0.1:9"))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("resources", [Resources(cpus_per_trial=9), Resources(gpus_per_trial=3)])
def test_trial_that_fits_nowhere_is_refused_at_once(resources):
    with pytest.raises(
        ConfigurationError, match=r"one trial needs CPU=.*, the cluster has CPU=8,GPU=2; ask for less"
    ):
        _fit(resources, [{"CPU": 8.0, "GPU": 2.0}])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cpus_per_trial": 0}, "CPUs per trial must be above 0"),
        ({"gpus_per_trial": -1}, "GPUs per trial must be 0 or more"),
        ({"max_concurrent": 0}, "trials at once must be at least 1"),
        ({"workers_per_trial": 0}, "workers per trial must be at least 1"),
        ({"gpus_per_trial": 1.5}, "one GPU for each worker of a trial, got 1.5 GPUs for 1"),
        ({"gpus_per_trial": 4, "workers_per_trial": 2}, "got 4 GPUs for 2"),
    ],
)
def test_resources_are_checked(given, message):
    with pytest.raises(ConfigurationError, match=message):
        Resources(**given)


def test_more_workers_of_a_trial_than_cores_are_refused():
    nodes = [{"CPU": 2.0}, {"CPU": 1.0}]
    assert _fit(Resources(workers_per_trial=3), nodes).n_workers == 3
    with pytest.raises(
        ConfigurationError, match=r"at most 3 workers for one trial.* got 200; try --workers-per-trial 3"
    ):
        _fit(Resources(workers_per_trial=200), nodes)


def test_workers_of_a_trial_may_be_on_several_nodes_but_each_is_on_one():
    nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}]
    assert _fit(Resources(gpus_per_trial=4), nodes) == Slots(1, {"CPU": 0.25, "GPU": 1.0}, 4)
    assert _fit(Resources(gpus_per_trial=2), nodes).n_trials == 2
    assert _fit(Resources(gpus_per_trial=0.25), nodes).n_trials == 16
    assert _fit(Resources(cpus_per_trial=2, workers_per_trial=2), [{"CPU": 3.0}]).n_trials == 1
    with pytest.raises(
        ConfigurationError, match=r"5 workers with a part each, the nodes .* CPU=8,GPU=2; CPU=8,GPU=2"
    ):
        _fit(Resources(gpus_per_trial=5), nodes)
    with pytest.raises(ConfigurationError, match="the nodes of the cluster have"):
        _fit(Resources(cpus_per_trial=9), nodes)
