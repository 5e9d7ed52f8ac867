"""The front as a registered model: versions, tags, aliases, twice the same, and one of them served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from dirprune.errors import ConfigurationError, TrackingError
from dirprune.records.finalists import Finalist
from dirprune.records.front import mark_front
from dirprune.records.models import load_model
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudySummary
from dirprune.tracking import default_tracking_uri, names, register_front, sync_study
from dirprune.tracking.store import RemoteRun
from tests.records.example_study import OBJECTIVES, make_trial
from tests.tracking.everything import read_everything
from tests.tracking.mlflow_process import find_free_port
from tests.tracking.test_mlflow_tracker import store_model

ACCURACIES = {0: (1.0, 0.99), 1: (0.5, 0.985), 2: (0.25, 0.97), 3: (0.1, 0.6), 4: (0.9, 0.5)}
RECORDS = mark_front([make_trial(n, "sampler", *at) for n, at in ACCURACIES.items()], OBJECTIVES)


@pytest.fixture
def empty_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log models without files: what is registered is what counts here."""

    def log(client: MlflowClient, experiment_id: str, run: RemoteRun, *arguments: object) -> None:
        logged = client.create_logged_model(experiment_id, name=names.MODEL, source_run_id=run.run_id)
        client.finalize_logged_model(logged.model_id, "READY")
        client.set_tag(run.run_id, names.MODEL_ID, logged.model_id)
        run.tags[names.MODEL_ID] = logged.model_id

    monkeypatch.setattr("dirprune.tracking.uploader.log_model", log)


def read_model(uri: str, name: str) -> tuple[dict[int, Any], dict[str, int]]:
    """Return versions by trial, and aliases with their trials."""
    client = MlflowClient(uri)
    versions = {int(v.tags[names.TRIAL]): v for v in client.search_model_versions(f"name = '{name}'")}
    trials = {version.version: number for number, version in versions.items()}
    aliases = client.get_registered_model(name).aliases
    return versions, {alias: trials[int(version)] for alias, version in aliases.items()}


@pytest.mark.usefixtures("empty_models")
def test_members_of_the_front_are_versions_with_their_numbers_and_three_have_names(
    summary: StudySummary, output: Path
) -> None:
    uri = default_tracking_uri(output)
    sync_study(summary, RECORDS, uri)
    assert register_front(summary, uri, "lenet digits", RECORDS) == (4, [])
    versions, aliases = read_model(uri, "lenet digits")
    assert sorted(versions) == [0, 1, 2, 3]
    assert aliases == {"most-accurate": 0, "smallest": 3, "knee": 2}
    tags = versions[1].tags
    assert float(tags["val_accuracy"]) == 0.985
    assert float(tags["test_accuracy"]) == pytest.approx(0.983)
    assert int(tags["macs"]) == RECORDS[1].metrics["macs"]
    assert int(tags["parameters"]) == RECORDS[1].metrics["parameters"]
    assert (tags[names.STUDY], tags[names.STUDY_ID]) == ("lenet", summary.study_id)
    before = read_everything(uri)
    assert register_front(summary, uri, "lenet digits", RECORDS) == (4, [])
    assert read_everything(uri) == before


@pytest.mark.usefixtures("empty_models")
def test_a_front_that_has_grown_moves_the_names_and_adds_its_versions(
    summary: StudySummary, output: Path
) -> None:
    uri = default_tracking_uri(output)
    sync_study(summary, RECORDS[:2], uri)
    register_front(summary, uri, "lenet", mark_front(RECORDS[:2], OBJECTIVES))
    assert read_model(uri, "lenet")[1] == {"most-accurate": 0, "smallest": 1, "knee": 0}
    metrics = {**RECORDS[3].metrics, "macs": 99.0, "latency_ms": 0.25}
    tiny = make_trial(5, "sampler", 0.05, 0.65, metrics=metrics)
    grown = mark_front([*RECORDS, tiny], OBJECTIVES)
    sync_study(summary, grown, uri)
    register_front(summary, uri, "lenet", grown)
    versions, aliases = read_model(uri, "lenet")
    assert aliases["smallest"] == 5
    assert versions[5].tags["latency_ms"] == "0.25"


@pytest.mark.usefixtures("without_models")
def test_models_that_are_not_there_are_named(summary: StudySummary, output: Path) -> None:
    uri = default_tracking_uri(output)
    sync_study(summary, RECORDS[:1], uri)
    assert register_front(summary, uri, "lenet", RECORDS[:1]) == (0, ["the model of trial 0"])


@pytest.mark.usefixtures("empty_models")
def test_of_a_study_with_finalists_their_best_seeds_are_registered(
    summary: StudySummary, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = default_tracking_uri(output)
    sync_study(summary, RECORDS, uri)
    from dirprune.records.finalists import FinalTraining
    from dirprune.tracking.uploader import Uploader

    uploader = Uploader(summary, uri, None)
    uploader.connect()
    training = FinalTraining(replace(RECORDS[1], is_front=True), 2)
    uploader.upload((1, 2), training.record)
    uploader._upload_models([(1, 2)])
    mean: TrialRecord = replace(RECORDS[1], metrics={**RECORDS[1].metrics, "val_accuracy": 0.9})
    finalist = Finalist(mean.on_front(True), {"val_accuracy": 0.01}, 3, 2)
    assert register_front(summary, uri, "final", RECORDS, [finalist]) == (1, [])
    versions, _ = read_model(uri, "final")
    assert {number: version.tags["val_accuracy"] for number, version in versions.items()} == {1: "0.9"}
    run = MlflowClient(uri).get_run(versions[1].run_id)
    assert run.data.tags[names.REPETITION] == "2"


@pytest.mark.parametrize("name", ["", "../outside", "a/b", "/etc", "a:b", ".hidden", "a\nb", "x" * 251, "a'"])
def test_names_that_read_as_paths_or_cannot_be_are_refused(name: str, summary: StudySummary) -> None:
    with pytest.raises(ConfigurationError, match="--register: expected a name of letters"):
        register_front(summary, "sqlite:////nowhere.db", name, RECORDS)


def test_a_server_that_is_away_is_one_line_with_the_way_out(summary: StudySummary) -> None:
    with pytest.raises(TrackingError) as raised:
        register_front(summary, "http://me:hunter2@127.0.0.1:9", "lenet", RECORDS)
    advice = f"try dirprune sync {summary.folder.root} --register 'lenet' --tracking-uri URI later"
    assert advice in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.slow
def test_the_smallest_model_of_a_front_is_served_and_answers_as_the_stored_one_does(
    summary: StudySummary, output: Path, tmp_path: Path
) -> None:
    uri = default_tracking_uri(output)
    store_model(summary, 3)
    sync_study(summary, [RECORDS[3].on_front(True)], uri)
    assert register_front(summary, uri, "lenet", [RECORDS[3].on_front(True)]) == (1, [])
    port = find_free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/lenet@smallest"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = tmp_path / "serve.log"
    with log.open("wb") as printed:
        server = subprocess.Popen(
            command, stdout=printed, stderr=printed, env=environment, cwd=tmp_path, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 200
        while server.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                    break
            except OSError:
                time.sleep(0.3)
        images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        body = json.dumps({"inputs": images.tolist()}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=120) as answer:
            found = torch.tensor(json.load(answer)["predictions"])
    except OSError as error:
        raise AssertionError(log.read_text()[-3000:]) from error
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    stored = load_model(summary.folder.model_dir(3))
    with torch.inference_mode():
        expected = stored(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
