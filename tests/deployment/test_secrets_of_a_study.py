"""A whole study on a team's servers: passwords and keys are in no file, line or argument, nor in MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import s3fs
from mlflow import MlflowClient

from dirprune.errors import TrackingError
from dirprune.tracking import check_server, names
from tests.deployment.conftest import PASSWORD, Served
from tests.deployment.services import POSTGRES_PASSWORD, Postgres
from tests.object_store import BUCKET, run_store

TOY = Path(__file__).parents[1] / "integration" / "toy_study.py"
README = Path(__file__).parents[2] / "cluster" / "README.md"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAOFDIRPRUNESTESTS",
    "AWS_SECRET_ACCESS_KEY": "a/secret+access/key+of/tests",
    "AWS_SESSION_TOKEN": "a-session-token-of-tests",
}
SECRETS = (PASSWORD, POSTGRES_PASSWORD, *KEYS.values())


def watch(process: subprocess.Popen[bytes], folder: Path) -> tuple[set[str], dict[Path, bytes]]:
    """Return every command line of a process and its children until it ends, and what it pickled meanwhile.

    Ray Tune's pickled state lies in a temporary folder, which is gone when the study has ended.
    """
    lines: set[str] = set()
    pickled: dict[Path, bytes] = {}
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        for one in (parent, *parent.children(recursive=True)):
            try:
                lines.add(" ".join(one.cmdline()))
            except psutil.Error:  # it has ended meanwhile
                continue
        with contextlib.suppress(OSError):  # a folder is gone meanwhile
            for path in folder.rglob("*.pkl"):
                with contextlib.suppress(OSError):  # Ray writes it anew
                    pickled[path] = pickled.get(path, b"") + path.read_bytes()
        time.sleep(0.2)
    return lines, pickled


@pytest.mark.slow
def test_a_driver_logs_in_by_the_file_that_the_readme_of_clusters_shows(
    team_server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = re.search(r"```\n( *\[mlflow\]\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    text = textwrap.dedent(shown[1]).replace("NAME", "admin").replace("PASSWORD", PASSWORD)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TrackingError, match="it knows no such user and password"):
        check_server(team_server.uri)
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(text, encoding="utf-8")
    check_server(team_server.uri)
    assert MlflowClient(team_server.uri).search_experiments()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Yield a folder with a short path: those of Ray's sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dirprune-") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_passwords_and_keys_of_the_servers_are_left_nowhere(
    team_server: Served,
    postgres: Postgres,
    tmp_path: Path,
    short_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    postgres.query("CREATE DATABASE trials")
    host = team_server.uri.removeprefix("http://")
    settings = {
        "MLFLOW_TRACKING_URI": f"http://admin:{PASSWORD}@{host}",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        "TMPDIR": str(short_folder),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        **postgres.environment,
    }
    storage = postgres.uri.replace("postgresql://", "postgresql+psycopg://").replace("/postgres", "/trials")
    printed = tmp_path / "printed"
    command = [sys.executable, TOY, "--name", "secret", "--trials", "2", "--optuna-storage", storage]
    with run_store(tmp_path_factory.mktemp("store")) as store, printed.open("wb") as output:
        study = subprocess.Popen(
            [*command, "--storage", store.uri],
            cwd=tmp_path,
            env={**os.environ, **settings, **store.environment, **KEYS},
            stdout=output,
            stderr=output,
        )
        arguments, pickled = watch(study, Path(settings["TMPDIR"]))
        assert study.returncode == 0, printed.read_text()
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        stored = {path: files.cat_file(path) for path in files.find(BUCKET)}
    assert any("/models/" in path for path in stored)
    assert any(path.name == "study.json" for path in tmp_path.rglob("*"))
    assert "secret" in " ".join(arguments)
    folders = (tmp_path, Path(settings["TMPDIR"]))
    written = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any("session" in str(path) for path in written)  # Ray's own files and logs
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    client = MlflowClient(team_server.uri)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`{names.STUDY}` = 'secret'")
    assert len(runs) >= 3
    told = json.dumps([run.to_dictionary() for run in runs], default=str)
    assert "postgresql" not in told
    assert pickled
    for secret in SECRETS:
        assert [path for path, content in pickled.items() if secret.encode() in content] == []
        assert not [line for line in arguments if secret in line]
        assert [path for path in written if secret.encode() in path.read_bytes()] == []
        assert [path for path, content in stored.items() if secret.encode() in content] == []
        assert secret not in told
        assert secret not in team_server.log.read_text()
