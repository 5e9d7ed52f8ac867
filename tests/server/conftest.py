"""Servers with the Pareto page, a browser, and studies as the tracker leaves them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudySummary
from dirprune.tracking.store import RemoteRun, RunStore
from dirprune.tracking.views import view_counts, view_progress, view_study, view_trial
from tests.browser import open_browser, open_page
from tests.records.example_study import N_CHANNELS, OBJECTIVES, make_study
from tests.tracking.mlflow_process import SERVER_STORE, MlflowServer, run_server

NAME = 'lenet <b onclick="alert(1)">on</b> <img src=x onerror=alert(1)> digits'
ADMIN, PASSWORD, SECRET = "keeper", "a-long-password-of-tests", "a-secret-key-of-tests"


class TrackedStudy:
    """A study in a store that grows as a driver would make it grow."""

    def __init__(self, uri: str, output: Path, name: str, study_id: str, **changes: object) -> None:
        self.store = RunStore(uri, output, study_id)
        self.runs: dict[int, RemoteRun] = {}
        costs = {"macs": 498_750.0, "parameters": 40_225.0}
        reference = {"val_accuracy": 0.1, "macs": 498_750.0}
        folder = StudyFolder(output / study_id)
        summary = StudySummary(name, study_id, folder, OBJECTIVES, reference, costs, N_CHANNELS, 60, 0)
        self.summary = replace(summary, **changes)  # type: ignore[arg-type]
        self.run = self.store.create_run(view_study(self.summary, "RUNNING", ()), None)

    def tell(self, records: list[TrialRecord]) -> None:
        """Bring trials and the study's own run to their newest state."""
        for record in records:
            view = view_trial(record, self.summary.name, self.summary.study_id)
            if record.number not in self.runs:
                self.runs[record.number] = self.store.create_run(view, self.run)
            self.store.update_(self.runs[record.number], view)
        n_finished = sum(run.status == "FINISHED" for run in self.runs.values())
        n_stopped = sum(run.status == "KILLED" for run in self.runs.values())
        counts = {"COMPLETE": n_finished, "PRUNED": n_stopped}
        time_ms = 1_700_000_000_000 + len(self.runs)
        points = [
            point
            for step in range(1, n_finished + 1)
            for point in view_progress(0.9 - 0.5 / step, step, {"COMPLETE": step}, time_ms)
        ]
        points += view_counts(counts, time_ms)
        self.store.update_(self.run, view_study(self.summary, "RUNNING", points))


def track_studies(uri: str, output: Path) -> tuple[TrackedStudy, TrackedStudy]:
    """Return a study of 24 trials whose name holds markup, and another of 12."""
    studies = (
        TrackedStudy(uri, output, NAME, "5ca1ab1e"),
        TrackedStudy(uri, output, "second", "decade"),
    )
    for study, n_trials, seed in zip(studies, (24, 12), (0, 1), strict=True):
        study.tell(mark_front(make_study(n_trials, seed), OBJECTIVES))
    return studies


def check_installed() -> None:
    """Skip the test where MLflow does not find the page."""
    if not entry_points(group="mlflow.app", name="dirprune-auth"):
        pytest.skip("needs the plugin to be installed: make install")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[MlflowServer]:
    check_installed()
    folder = tmp_path_factory.mktemp("open")
    shutil.copy(empty_store, folder / SERVER_STORE)
    with run_server(folder, app="dirprune") as running:
        yield running


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[MlflowServer]:
    check_installed()
    if find_spec("flask_wtf") is None:
        pytest.skip("needs mlflow[auth]: make install")
    settings = {
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET,
    }
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copy(empty_store, folder / SERVER_STORE)
    config = folder / "auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\n"
        f"admin_username = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    settings["MLFLOW_AUTH_CONFIG_PATH"] = str(config)
    with run_server(folder, app="dirprune-auth", settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def studies(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrackedStudy, ...]:
    return track_studies(server.uri, tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: MlflowServer) -> Iterator[Page]:
    with open_page(browser, server.uri) as opened:
        yield opened
