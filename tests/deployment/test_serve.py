"""`mlflow/serve.sh` for real: on SQLite and files, and on PostgreSQL and an object store with logins."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from dirprune.errors import TrackingError
from dirprune.records.front import mark_front
from dirprune.records.models import ARCHITECTURE
from dirprune.server import health
from dirprune.study.observer import StudySummary
from dirprune.tracking import check_server, names, sync_study
from dirprune.tracking.store import RunStore
from tests.deployment.conftest import PASSWORD, SECRET, Served, serve
from tests.deployment.readme import read_block, read_cell, read_requests, run_commands
from tests.deployment.services import KEYS, POSTGRES_PASSWORD, ObjectStore, Postgres
from tests.records.example_study import OBJECTIVES, make_trial
from tests.tracking.test_mlflow_tracker import store_model

pytestmark = pytest.mark.slow
ADMIN = f"admin:{PASSWORD}"
RECORDS = mark_front([make_trial(n, "sampler", 0.9 - n / 10, 0.99 - n / 100) for n in range(4)], OBJECTIVES)


def descendants(served: Served) -> list[psutil.Process]:
    parent = psutil.Process(served.process.pid)
    return [parent, *parent.children(recursive=True)]


def list_listeners(served: Served) -> set[str]:
    """Return the addresses on which the server and its children listen."""
    return {
        connection.laddr.ip
        for process in descendants(served)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def search_runs(uri: str, study_id: str | None = None) -> list[Run]:
    """Return the runs of all studies, or of one."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    assert experiment is not None
    query = "" if study_id is None else f"tags.`{names.STUDY_ID}` = '{study_id}'"
    return list(client.search_runs([experiment.experiment_id], query))


def find_study_run(uri: str, study_id: str) -> Run:
    """Return a study's own run."""
    (study,) = [run for run in search_runs(uri, study_id) if names.TRIAL not in run.data.tags]
    return study


def read_runs(uri: str, study_id: str | None = None) -> dict[str, object]:
    """Return what runs hold and the names of registered models: what a backup must bring back."""
    runs = search_runs(uri, study_id)
    found: dict[str, object] = {run.info.run_id: run.to_dictionary() for run in runs}
    return {**found, "models": [model.name for model in MlflowClient(uri).search_registered_models()]}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for answers longer than a study would: the first one of a busy machine's server takes its time.

    And ask once more where a server closes a connection, idle for 5 s, in the moment in which it is used
    again: a study tries again itself, the tests' own clients do not.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def sync(summary: StudySummary, uri: str) -> None:
    summary.folder.root.mkdir(parents=True, exist_ok=True)
    summary.folder.front_csv.write_text("trial\n0\n")
    sync_study(summary, RECORDS, uri)


@pytest.fixture
def as_admin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


@pytest.mark.usefixtures("without_models")
def test_one_machine_needs_no_setting_and_listens_to_nobody_else(
    summary: StudySummary, tmp_path: Path
) -> None:
    with serve(tmp_path) as served:
        check_server(served.uri)
        assert list_listeners(served) == {"127.0.0.1"}
        assert served.ask("/pareto")[0] == 200
        sync(summary, served.uri)
        before = read_runs(served.uri)
        assert len(before) == 5 + 1
        for path in (tmp_path / "server").iterdir():
            assert path.stat().st_mode & 0o077 == 0, path
    # The backup that the README shows: the folder of a server that has ended.
    subprocess.run(["tar", "-czf", "backup.tar.gz", "server"], cwd=tmp_path, check=True)
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(["tar", "-xzf", "../backup.tar.gz"], cwd=tmp_path / "elsewhere", check=True)
    restored = tmp_path / "elsewhere" / "server"
    assert read_runs(f"sqlite:///{restored / 'mlflow.db'}") == before
    assert [path.name for path in (restored / "artifacts").rglob("*") if path.is_file()] == ["front.csv"]


@pytest.mark.usefixtures("without_models", "as_admin")
def test_team_server_keeps_runs_in_postgresql_and_files_in_the_object_store_and_both_are_restored(
    summary: StudySummary,
    team_server: Served,
    team_settings: dict[str, str],
    postgres: Postgres,
    objects: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert list_listeners(team_server) == {"127.0.0.1"}
    check_server(team_server.uri)
    sync(summary, team_server.uri)
    # The server is shared with the other tests here, which leave studies of their own on it.
    assert len(read_runs(team_server.uri, summary.study_id)) == 5 + 1
    before = read_runs(team_server.uri)
    sync(summary, team_server.uri)
    assert read_runs(team_server.uri) == before
    stored = [item["Key"] for item in objects.client.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert [key for key in stored if key.endswith("/front.csv")]
    monkeypatch.setenv("MLFLOW_PORT", team_server.uri.rpartition(":")[2])
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", team_settings["MLFLOW_SERVER_ALLOWED_HOSTS"])
    for password, status in ((PASSWORD, 0), ("changed-since-then", 0)):
        monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", password)
        assert health.main() == status
    # Backup and restore as the README shows them, but of another name: the server goes on with its own.
    uri = team_settings["MLFLOW_BACKEND_STORE_URI"]
    restored = uri.replace("/team", "/mlflow")
    postgres.query("CREATE DATABASE mlflow")
    environment = postgres.client_environment
    run_commands(read_cell("pg_dump").replace("URI", uri), tmp_path, environment)
    restore = read_block("--maintenance-db").replace("URI", restored).replace("MAINTENANCE", postgres.uri)
    run_commands(restore, tmp_path, environment)
    monkeypatch.setenv("PGPASSWORD", POSTGRES_PASSWORD)
    assert read_runs(restored) == before
    users = postgres.run("psql", restored, "--no-align", "--tuples-only", "-c", "SELECT username FROM users")
    assert "admin" in users.split()


def test_without_a_login_everything_but_health_is_refused(team_server: Served) -> None:
    for path in (
        "/",
        "/pareto",
        "/api/2.0/mlflow/experiments/search?max_results=1",
        "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
        "/api/2.0/mlflow-artifacts/artifacts?path=.",
        "/get-artifact?path=front.csv&run_uuid=0",
        "/signup",
        "/graphql",
    ):
        assert team_server.ask(path)[0] == 401, path
        assert team_server.ask(path, "admin:password1234")[0] == 401, path
    assert team_server.ask("/pareto", ADMIN)[0] == 200


@pytest.mark.usefixtures("without_models", "as_admin")
def test_a_viewer_reads_everything_and_deletes_and_changes_nothing(
    summary: StudySummary, team_server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(summary, team_server.uri)
    client = MlflowClient(team_server.uri)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    assert experiment is not None
    client.create_registered_model("fronts")
    before = read_runs(team_server.uri)
    run = next(iter(before))
    viewer = {"username": "viewer", "password": "a-viewers-password"}
    login = ":".join(viewer.values())
    assert team_server.ask("/api/2.0/mlflow/users/create", ADMIN, json.dumps(viewer).encode())[0] == 200
    attempts = (
        ("POST", "runs/delete", {"run_id": run}),
        ("POST", "experiments/delete", {"experiment_id": experiment.experiment_id}),
        ("POST", "runs/log-metric", {"run_id": run, "key": "x", "value": 1.0, "timestamp": 1}),
        ("POST", "runs/set-tag", {"run_id": run, "key": "x", "value": "y"}),
        ("POST", "runs/update", {"run_id": run, "status": "FAILED"}),
        ("DELETE", "registered-models/delete", {"name": "fronts"}),
        ("POST", "users/create", {"username": "other", "password": "a-long-password"}),
        ("PATCH", "users/update-password", {"username": "admin", "password": "taken-over-by-viewer"}),
        ("PATCH", "users/update-admin", {"username": "viewer", "is_admin": True}),
    )
    for method, path, body in attempts:
        status, _ = team_server.ask(f"/api/2.0/mlflow/{path}", login, json.dumps(body).encode(), method)
        assert status == 403, path
    artifact = f"/api/2.0/mlflow-artifacts/artifacts/{experiment.experiment_id}/{run}/artifacts/front.csv"
    assert team_server.ask(artifact, login, method="DELETE")[0] == 403
    assert team_server.ask(artifact, login, b"changed", "PUT")[0] == 403
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "viewer")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", viewer["password"])
    assert read_runs(team_server.uri) == before


@pytest.mark.usefixtures("as_admin")
def test_a_user_who_may_edit_brings_a_study_to_its_end_though_nothing_may_be_deleted(
    summary: StudySummary, team_server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user and the right are what the README's commands give."""
    monkeypatch.setattr("dirprune.tracking.sync.PAUSES_S", ())
    RunStore(team_server.uri, summary.folder.output, "admin")  # whose experiment it is, as the first one's
    answers: list[dict[str, Any]] = []
    for method, path, body in read_requests("users/permissions/grant"):
        if body is not None and answers:
            body = body.replace('"ID"', json.dumps(answers[-1]["experiment"]["experiment_id"]))
        status, answer = team_server.ask(path, ADMIN, body and body.encode(), method)
        assert status == 200, (path, answer)
        answers.append(json.loads(answer))
    created = json.loads(read_requests("users/permissions/grant")[0][2] or "")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", created["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", created["password"])
    summary = replace(summary, study_id="ada")
    # The models of the front: one of a network of her own that is not given, one that cannot be exported.
    front = [record.number for record in RECORDS if record.is_front]
    for number in front[:2]:
        store_model(summary, number)
    described = summary.folder.model_dir(front[0]) / ARCHITECTURE
    own = {"name": "make", "options": {}, "module": "own.py"}
    described.write_text(json.dumps({**json.loads(described.read_text()), "network": own}))
    monkeypatch.setattr("dirprune.tracking.front_models._export", Mock(side_effect=ValueError("no graph")))
    client, real, doubles = MlflowClient(team_server.uri), MlflowClient.create_run, []

    def create_twice(self: MlflowClient, experiment: str, **keywords: Any) -> Run:  # as a slow server does
        if keywords["tags"].get(names.TRIAL) == "0":
            doubles.append(real(self, experiment, **keywords).info.run_id)
            with pytest.raises(MlflowException, match="Permission denied"):
                self.delete_run(doubles[0])
        return real(self, experiment, **keywords)

    monkeypatch.setattr(MlflowClient, "create_run", create_twice)
    summary.folder.front_csv.write_text("trial\n0\n")
    synced = sync_study(summary, RECORDS, team_server.uri)
    assert set(synced.refused) == {f"the model of trial {number}" for number in front}
    assert find_study_run(team_server.uri, "ada").info.status == "FINISHED"
    before = read_runs(team_server.uri, "ada")
    assert len(before) == 5 + 1
    assert doubles[0] not in before
    double = client.get_run(doubles[0])
    assert (double.info.status, double.data.tags[names.KIND]) == ("KILLED", names.DOUBLE)
    assert names.PARENT not in double.data.tags
    models = client.search_logged_models([double.info.experiment_id])
    assert [model.status.name for model in models if model.source_run_id in before] == ["FAILED"]
    sync_study(summary, RECORDS, team_server.uri)
    assert read_runs(team_server.uri, "ada") == before


@pytest.mark.usefixtures("as_admin")
def test_no_secret_is_an_argument_or_a_printed_line(team_server: Served) -> None:
    check_server(team_server.uri)
    secrets = (PASSWORD, SECRET, POSTGRES_PASSWORD, KEYS["AWS_SECRET_ACCESS_KEY"])
    arguments = [" ".join(process.cmdline()) for process in descendants(team_server)]
    assert any("uvicorn" in line for line in arguments)
    printed = team_server.log.read_text()
    assert "logins on" in printed
    for secret in secrets:
        assert not [line for line in arguments if secret in line]
        assert secret not in printed
    written = [path for path in (team_server.log.parent / "server").rglob("*") if path.is_file()]
    assert [path.name for path in written if PASSWORD in path.read_text(errors="replace")] == []


@pytest.mark.usefixtures("as_admin")
@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "%2e%2e/outside", "..%2Foutside"])
def test_artifacts_stay_below_their_place(team_server: Served, objects: ObjectStore, path: str) -> None:
    before = {item["Key"] for item in objects.client.list_objects_v2(Bucket="mlflow").get("Contents", [])}
    for method, body in (("PUT", b"outside"), ("GET", None), ("DELETE", None)):
        address = f"/api/2.0/mlflow-artifacts/artifacts/{path}"
        assert team_server.ask(address, ADMIN, body, method)[0] in (400, 403, 404), (method, path)
    after = {item["Key"] for item in objects.client.list_objects_v2(Bucket="mlflow").get("Contents", [])}
    assert after == before


@pytest.mark.usefixtures("without_models", "as_admin")
def test_server_starts_on_a_full_object_store_where_files_can_be_read_and_deleted(
    summary: StudySummary, team_server: Served, objects: ObjectStore
) -> None:
    printed = team_server.log.read_text()
    assert "warning: nothing can be stored in the artifact store s3://mlflow: it fails, as some do" in printed
    summary = replace(summary, study_id="f0115704")
    sync(summary, team_server.uri)
    study = find_study_run(team_server.uri, summary.study_id)
    stored = f"/api/2.0/mlflow-artifacts/artifacts/{study.info.experiment_id}/{study.info.run_id}/artifacts/"
    with objects.full("XMinioStorageFull"):
        assert team_server.ask(f"{stored}more.csv", ADMIN, b"more", "PUT")[0] >= 500
        assert team_server.ask(f"{stored}front.csv", ADMIN) == (200, b"trial\n0\n")
        assert team_server.ask(f"{stored}front.csv", ADMIN, method="DELETE")[0] == 200
    assert MlflowClient(team_server.uri).list_artifacts(study.info.run_id) == []


@contextmanager
def without_bucket(objects: ObjectStore) -> Iterator[None]:
    for item in objects.client.list_objects_v2(Bucket="mlflow").get("Contents", []):
        objects.client.delete_object(Bucket="mlflow", Key=item["Key"])
    objects.client.delete_bucket(Bucket="mlflow")
    try:
        yield
    finally:
        objects.client.create_bucket(Bucket="mlflow")


@pytest.mark.usefixtures("without_models", "as_admin")
@pytest.mark.parametrize("hindrance", [without_bucket, lambda objects: objects.full("XMinioStorageFull")])
def test_object_store_without_its_bucket_or_full_is_one_line_and_runs_are_there_all_the_same(
    summary: StudySummary,
    team_server: Served,
    objects: ObjectStore,
    hindrance: Callable[[ObjectStore], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dirprune.tracking.sync.PAUSES_S", ())
    summary = replace(summary, study_id=uuid.uuid4().hex)
    with hindrance(objects), pytest.raises(TrackingError) as raised:
        sync(summary, team_server.uri)
    assert "\n" not in str(raised.value)
    assert "the same command goes on where this one ended" in str(raised.value)
    assert len(search_runs(team_server.uri, summary.study_id)) == 5
    sync(summary, team_server.uri)
    study = find_study_run(team_server.uri, summary.study_id)
    assert study.info.status == "FINISHED"
    files = MlflowClient(team_server.uri).list_artifacts(study.info.run_id)
    assert [file.path for file in files] == ["front.csv"]
