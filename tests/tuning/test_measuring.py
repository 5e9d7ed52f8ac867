"""Latencies on a cluster are measured on GPUs, or on nodes without one, that nobody else holds."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import requests
import torch
from ray.job_submission import JobSubmissionClient
from ray.util.state.exception import RayStateApiException
from torch import nn

from dirprune.errors import ConfigurationError
from dirprune.groups import Grouping
from dirprune.study import latency as study_latency
from dirprune.study.latency import LatencyOptions
from dirprune.tuning import measuring
from dirprune.tuning.cluster import Resources, Slots
from dirprune.tuning.measuring import choose_where, with_whole_gpus, with_whole_node
from dirprune.tuning.small_ray import without_idle_processes
from tests.small_cluster import SmallCluster


@pytest.mark.parametrize(
    ("bundle", "whole"),
    [
        ({"CPU": 1.0, "GPU": 0.25}, {"CPU": 1.0, "GPU": 1.0}),
        ({"CPU": 0.5, "GPU": 1.0, "A100": 0.5}, {"CPU": 0.5, "GPU": 1.0, "A100": 0.5}),
        ({"CPU": 0.5}, {"CPU": 0.5}),
    ],
)
def test_of_gpus_whole_ones_are_taken(bundle: dict[str, float], whole: dict[str, float]) -> None:
    assert with_whole_gpus(bundle) == whole


NODES = [{"CPU": 4.0, "memory": 8.0}, {"CPU": 2.0, "A100": 1.0, "memory": 8.0}, {"CPU": 8.0, "memory": 1.0}]


@pytest.mark.parametrize(
    ("bundle", "n_cpus"),
    [
        ({"CPU": 0.5}, 8.0),
        ({"CPU": 1.0, "memory": 4.0}, 4.0),
        ({"CPU": 1.0, "A100": 0.5}, 2.0),
        ({"CPU": 8.0}, 8.0),
    ],
)
def test_of_nodes_the_largest_on_which_a_trial_fits_is_taken_whole(
    bundle: dict[str, float], n_cpus: float
) -> None:
    assert with_whole_node(bundle, NODES) == {**bundle, "CPU": n_cpus}


@pytest.mark.parametrize(("gpus", "device"), [(None, "cuda"), (0.0, "cpu"), (0.5, "cuda")])
def test_beside_a_gpu_latencies_are_of_what_trials_compute_on(
    gpus: float | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(measuring, "measure_here", lambda *given: given[-1])
    measure = choose_where(Resources(gpus_per_trial=gpus))
    assert str(measure(nn.Linear(2, 2), Grouping(()), (2,), LatencyOptions())) == device


@pytest.mark.usefixtures("on_a_busy_device")
def test_without_a_share_of_a_gpu_the_cpu_is_measured_whatever_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(study_latency, "fit_latency", lambda network, grouping, inputs: inputs)
    measure = choose_where(Resources(gpus_per_trial=0))
    inputs = measure(nn.Linear(2, 2), Grouping(()), (2,), LatencyOptions(batch_size=3))
    assert isinstance(inputs, torch.Tensor)
    assert (inputs.device.type, inputs.shape) == ("cpu", (3, 2))


def look_around(gpu_share: float, *given: object) -> dict[str, float]:
    """Return what a measurement holds and is told of GPUs, and how many tasks of others began during it."""

    @ray.remote(num_cpus=0.5)
    def begin() -> None: ...

    begun, _ = ray.wait([begin.remote()], timeout=2)
    held = ray.get_runtime_context().get_assigned_resources()
    return {**held, "begun": len(begun), "share": gpu_share}


@pytest.mark.slow
def test_a_smaller_node_that_is_idle_is_taken_before_a_larger_one_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "measure_with", look_around)
    monkeypatch.setattr(measuring, "PATIENCE_S", 0.5)
    cluster = SmallCluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=2)
        ray.init(cluster.address, log_to_driver=False)

        @ray.remote(num_cpus=3)
        class Other:
            def begin(self) -> None: ...

        other = Other.remote()
        ray.get(other.begin.remote())

        @contextmanager
        def connect(resources: Resources) -> Iterator[Slots]:
            yield Slots(4, {"CPU": 0.5})

        monkeypatch.setattr(measuring, "connect", connect)
        measure = choose_where(Resources(address=cluster.address))
        seen = dict(measure(nn.Linear(2, 2), Grouping(()), (2,), LatencyOptions()))  # type: ignore[call-overload]
        assert seen["CPU"] == 2.0
    finally:
        ray.shutdown()
        cluster.shutdown()


LIVING = [
    {"NodeID": "a", "Resources": {"CPU": 2.0, "memory": 8.0}},
    {"NodeID": "b", "Resources": {"CPU": 1.3}},
]


@pytest.fixture
def ask_for_actors(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., list[SimpleNamespace]]], None]:
    """Make this process one of a job; called with what answers in place of Ray's dashboard."""
    job = {"metadata": {"job_submission_id": "ours"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    return partial(monkeypatch.setattr, "ray.util.state.list_actors")


@pytest.mark.parametrize(
    ("holder", "held", "left", "n_cpus"),
    [
        ("a", {"CPU": 2.0}, [{"CPU": 0.0, "memory": 8.0}, {"CPU": 1.3}], 1.3),
        ("b", {"CPU": 0.1, "memory": 1.0}, [{"CPU": 2.0, "memory": 8.0}, {"CPU": 1.2}], 2.0),
        ("b", None, [{"CPU": 2.0, "memory": 8.0}, {"CPU": 1.3}], 2.0),
    ],
    ids=["all CPUs", "a part", "nothing"],
)
def test_what_the_own_job_holds_is_left_out_of_its_node(
    holder: str,
    held: dict[str, float] | None,
    left: list[dict[str, float]],
    n_cpus: float,
    ask_for_actors: Callable[..., None],
) -> None:
    ask_for_actors(lambda **asked: [SimpleNamespace(node_id=holder, required_resources=held)])
    assert [node["Resources"] for node in measuring._without_own_job(LIVING)] == left
    assert with_whole_node({"CPU": 0.5}, left)["CPU"] == n_cpus


@pytest.mark.parametrize("error", [RayStateApiException("partial"), requests.Timeout("slow")])
def test_a_dashboard_that_does_not_answer_ends_no_study(
    error: Exception, ask_for_actors: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**asked: object) -> list[SimpleNamespace]:
        raise error

    ask_for_actors(fail)
    assert measuring._without_own_job(LIVING) == LIVING
    assert caplog.messages == [
        f"not known which CPUs the study's own job holds ({type(error).__name__}: {error}): "
        "measurements may wait for them"
    ]


OF_A_JOB = """
import ray
from torch import nn

from dirprune.groups import Grouping
from dirprune.study.latency import LatencyOptions
from dirprune.tuning import measuring
from dirprune.tuning.cluster import Resources

measuring.PATIENCE_S = 60.0  # where it is wrong, that long
measuring.measure_with = lambda *given: ray.get_runtime_context().get_assigned_resources()["CPU"]
measure = measuring.choose_where(Resources(address="auto", cpus_per_trial=0.5))
print("CPUs held:", measure(nn.Linear(2, 2), Grouping(()), (2,), LatencyOptions()))
"""


@pytest.mark.slow
def test_of_a_node_that_runs_the_study_s_own_job_what_the_job_does_not_hold_is_taken(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(OF_A_JOB)
    there = ray.init(address="local", num_cpus=3, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        jobs = JobSubmissionClient(f"http://{there.dashboard_url}")
        job = jobs.submit_job(entrypoint=f"{sys.executable} {script}", entrypoint_num_cpus=1)
        deadline = time.monotonic() + 120
        while not jobs.get_job_status(job).is_terminal():
            assert time.monotonic() < deadline, jobs.get_job_logs(job)
            time.sleep(0.2)
        assert "CPUs held: 2.0" in jobs.get_job_logs(job)
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of two CPUs and a GPU that is none."""
    with without_idle_processes():
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=1,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
    try:
        yield
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("bundle", "held", "what"),
    [
        pytest.param(
            {"CPU": 0.5, "GPU": 0.25}, {"GPU": 1.0, "share": 1.0}, "a whole GPU", marks=pytest.mark.slow
        ),
        ({"CPU": 0.5}, {"CPU": 2.0, "begun": 0, "share": 0.0}, "all 2 CPUs of a node"),
    ],
    ids=["gpu", "cpu"],
)
def test_a_measurement_holds_its_device_and_does_not_wait_for_ever(
    bundle: dict[str, float],
    held: dict[str, float],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @contextmanager
    def connect(resources: Resources) -> Iterator[Slots]:
        yield Slots(4, bundle)

    monkeypatch.setattr(measuring, "connect", connect)
    monkeypatch.setattr(measuring, "measure_with", look_around)
    monkeypatch.setattr(measuring, "NOTICE_S", 0.5)
    monkeypatch.setattr(measuring, "PATIENCE_S", 60.0)
    given = (nn.Linear(2, 2), Grouping(()), (2,), LatencyOptions())
    measure = choose_where(Resources(address="auto"))
    seen = dict(measure(*given))  # type: ignore[call-overload]  # in place of a model
    assert {name: seen[name] for name in held} == held

    @ray.remote(num_cpus=0.5, num_gpus=bundle.get("GPU", 0.0))
    class Trial:
        def begin(self) -> None: ...

    other = Trial.remote()
    ray.get(other.begin.remote())
    monkeypatch.setattr(measuring, "PATIENCE_S", 0.5)
    with pytest.raises(ConfigurationError, match=f"expected {what} to measure latencies on, got none in"):
        measure(*given)
    assert "that nobody else uses: waiting for" in caplog.text
    monkeypatch.setattr(measuring, "PATIENCE_S", 60.0)
    ending = threading.Timer(1, ray.kill, [other])
    ending.start()
    seen = dict(measure(*given))  # type: ignore[call-overload]
    assert {name: seen[name] for name in held} == held, "it goes on when the other has ended"
    ending.join()
