"""A database, an object store and a server of `mlflow/serve.sh` on them, once for all tests here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployment.services import ObjectStore, Postgres, find_postgres, run_object_store, run_postgres
from tests.tracking.conftest import output, summary, without_models  # noqa: F401  (fixtures)
from tests.tracking.mlflow_process import find_free_port

SCRIPT = Path(__file__).parents[2] / "mlflow" / "serve.sh"
PASSWORD, SECRET = "an-admin-password-of-tests", "a-secret-key-of-tests"


@dataclass(frozen=True)
class Served:
    """A server that `serve.sh` has started: its address, its process, and all that it prints."""

    uri: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(
        self, path: str, login: str | None = None, body: bytes | None = None, method: str | None = None
    ) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        request = urllib.request.Request(f"{self.uri}{path}", body, method=method)
        request.add_header("Content-Type", "application/json")
        if login is not None:
            request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def environment_for(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without what would change a server, and with some settings."""
    ours = ("MLFLOW_", "AWS_", "PG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHON": sys.executable, **settings}


@contextmanager
def serve(folder: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Yield a server whose API answers; end it with its whole process group."""
    port = find_free_port()
    log = folder / "serve.log"
    command = ["bash", str(SCRIPT), "--port", str(port), "--folder", str(folder / "server"), *arguments]
    with log.open("ab") as printed:
        process = subprocess.Popen(
            command,
            stdout=printed,
            stderr=printed,
            env=environment_for(settings or {}),
            cwd=folder,
            start_new_session=True,
        )
    served = Served(f"http://localhost:{port}", process, log)
    try:
        _wait_for_api(served)
        yield served
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_for_api(served: Served, patience_s: float = 180.0) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and served.process.poll() is None:
        try:
            status, _ = served.ask("/api/2.0/mlflow/experiments/search?max_results=1")
            if status in (200, 401):
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise TimeoutError(served.log.read_text()[-2000:])


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if find_postgres() is None:
        pytest.skip("needs PostgreSQL's programs, such as apt-get install postgresql")
    with run_postgres() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with run_object_store(tmp_path_factory.mktemp("objects")) as store:
        yield store


@pytest.fixture(scope="session")
def team_settings(postgres: Postgres, objects: ObjectStore) -> dict[str, str]:
    """The environment of a server as compose.yaml has it: PostgreSQL, an object store, logins."""
    postgres.query("CREATE DATABASE team")
    objects.client.create_bucket(Bucket="mlflow")
    return {
        "MLFLOW_BACKEND_STORE_URI": postgres.uri.replace("/postgres", "/team"),
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET,
        "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example.org,localhost:*",  # so 127.0.0.1 is refused
        **postgres.environment,
        **objects.environment,
    }


@pytest.fixture(scope="session")
def team_server(
    team_settings: dict[str, str], objects: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server that was started while the object store was full, as Versity's gateway says so."""
    with ExitStack() as starting:
        starting.enter_context(objects.full("InternalError"))
        with serve(tmp_path_factory.mktemp("team"), "--auth", settings=team_settings) as served:
            starting.close()
            yield served
