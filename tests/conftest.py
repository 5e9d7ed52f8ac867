"""What all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

# Before torch is imported, and for the processes that tests start: threads that wait for each other by
# spinning make small networks on shared cores many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No time that a test takes may fail it: other programs want the cores as well.
hypothesis.settings.register_profile("dirprune", deadline=None)
hypothesis.settings.load_profile("dirprune")

REQUIRE_ALL = "DIRPRUNE_REQUIRE_ALL"
UNPACK = Path(__file__).parents[2] / "shared" / "data" / "unpack"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure where `.ci/run` says that every part is there; expected failures stay."""
    if os.environ.get(REQUIRE_ALL, "0") in ("", "0") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{REQUIRE_ALL} is set, so nothing may be skipped: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture
def on_a_busy_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test measure beside others: that a busy device is refused is tested by itself."""
    from dirprune import latency, quiet
    from dirprune.study import latency as study_latency

    monkeypatch.setattr(latency, "MAX_SPREAD", float("inf"))
    monkeypatch.setattr(study_latency, "MAX_ERROR", float("inf"))
    monkeypatch.setattr(quiet, "IDLE_SHARE", 0.0)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder of the real MNIST, unpacked from what lies beside the repository."""
    return _unpack("mnist")


@pytest.fixture(scope="session")
def cifar10_root() -> Path:
    """The folder of the real CIFAR-10, likewise."""
    return _unpack("cifar10")


def _unpack(name: str) -> Path:
    if not UNPACK.is_file():
        pytest.skip(f"needs {name}: no ../shared/data/unpack beside the repository")
    result = subprocess.run([sys.executable, UNPACK, name], capture_output=True, text=True, check=True)
    return Path(result.stdout.strip())


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """The address of a Ray of this machine alone, for all tests of a module: starting one takes seconds."""
    from tests.small_cluster import SmallCluster

    n_cpus = len(os.sched_getaffinity(0))
    cluster = SmallCluster(
        initialize_head=True, head_node_args={"num_cpus": n_cpus, "include_dashboard": False}
    )
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking store that MLflow has just set up, to be copied: setting up takes seconds."""
    from mlflow import MlflowClient

    from dirprune.tracking.server import default_tracking_uri, prepare_environment_

    folder = tmp_path_factory.mktemp("store")
    prepare_environment_()
    MlflowClient(default_tracking_uri(folder)).search_experiments(max_results=1)
    return folder / "mlflow.db"
