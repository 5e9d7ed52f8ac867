"""MLflow's own pages in a browser: the study's run with its trials, and the interactive front."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.front_page import write_front_html
from dirprune.records.pictures import write_architectures_png, write_front_png
from dirprune.records.tables import write_front, write_trials
from dirprune.study.observer import StudySummary
from dirprune.tracking import MlflowTracker, default_tracking_uri, names
from tests.records.example_study import N_CHANNELS, OBJECTIVES, make_study
from tests.tracking.mlflow_process import run_server

pytestmark = pytest.mark.slow

NAME = "lenet <b>on</b> digits"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def experiment_id(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Track a made-up study of 12 trials, and return its experiment."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setattr("dirprune.tracking.uploader.log_model", lambda *arguments: None)
    folder, records = StudyFolder(tmp_path / "lenet"), mark_front(make_study(12), OBJECTIVES)
    write_front_png(folder.front_png, records, OBJECTIVES, NAME)
    write_architectures_png(folder.architectures_png, records, N_CHANNELS, NAME)
    write_front(folder.front_csv, records, OBJECTIVES)
    write_trials(folder.trials_csv, records, OBJECTIVES)
    costs = {"macs": 498_750.0}
    reference = {"val_accuracy": 0.1, **costs}
    summary = StudySummary(NAME, "5ca1ab1e", folder, OBJECTIVES, reference, costs, N_CHANNELS, 12, 0)
    write_front_html(folder.front_html, summary, records, NAME)
    tracker = MlflowTracker(interval_s=0.1)
    tracker.study_started(summary)
    for n_finished in range(1, 9):
        tracker.front_changed(records[: n_finished // 2], 0.1 * n_finished**0.5, {"COMPLETE": n_finished})
    tracker.study_ended(records, False)
    assert tracker.close() == []
    client = MlflowClient(default_tracking_uri(tmp_path))
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    assert experiment is not None
    return str(experiment.experiment_id)


def look(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    assert path.stat().st_size > 10_000


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, such as apt-get install chromium")
def test_study_its_trials_and_the_interactive_front_are_shown(experiment_id: str, tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path)
    [study] = MlflowClient(uri).search_runs([experiment_id], f"tags.`{names.KIND}` = 'study'")
    with run_server(tmp_path, uri) as server, sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        page.on("dialog", lambda dialog: pytest.fail(f"markup ran: {dialog.message}"))
        page.goto(f"{server.uri}/#/experiments/{experiment_id}/runs")
        page.get_by_text(NAME, exact=True).first.wait_for()
        page.locator(
            "[data-testid=expander-button], .ag-cell .anticon-plus-square, .ag-cell svg"
        ).first.click()
        page.get_by_text(f"trial 11 of {NAME}", exact=True).first.wait_for()
        look(page, tmp_path / "runs.png")
        page.goto(f"{server.uri}/#/experiments/{experiment_id}/runs/{study.info.run_id}/artifacts/front.html")
        frame = page.frame_locator("iframe").first
        frame.locator(".point.front").first.wait_for()
        assert frame.locator("h1").inner_text() == NAME
        assert frame.locator("#trials tbody tr").count() >= 3
        frame.locator(".point.front").last.click()
        frame.locator("#details .bars li").first.wait_for()
        frame.get_by_label("find").fill("stopped")  # shown also by a frame that cannot keep its choices
        frame.locator("#count", has_text="3 of 12").wait_for()
        look(page, tmp_path / "front.png")
        page.goto(f"{server.uri}/#/experiments/{experiment_id}/runs/{study.info.run_id}")
        page.get_by_text("front_size").first.wait_for()
        look(page, tmp_path / "study.png")
        browser.close()
