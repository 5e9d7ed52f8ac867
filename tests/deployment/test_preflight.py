"""What hinders a server is said in one line before it starts: secrets, database, schema, object store."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import tempfile
import urllib.parse
from pathlib import Path

import pytest
from mlflow.server.fastapi_security import get_allowed_hosts
from mlflow.server.security_utils import is_allowed_host_header

from dirprune.errors import DirpruneError
from dirprune.server import health, preflight
from tests.deployment.conftest import SCRIPT, environment_for
from tests.deployment.services import KEYS, ObjectStore, Postgres
from tests.tracking.mlflow_process import find_free_port


def run_script(folder: Path, *arguments: str, **settings: str) -> tuple[int, list[str]]:
    """Return the status and what `serve.sh` said on stderr, where it ends by itself."""
    command = ["bash", str(SCRIPT), "--folder", str(folder / "server"), *arguments]
    environment = environment_for(settings)
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--prot", "5000"), "unknown argument --prot; try"),
        (("--port",), "--port: expected a value, got nothing"),
        (("--port", "5000x"), "--port: expected a number from 1 to 65535, got 5000x"),
        (("--port", "65536"), "--port: expected a number from 1 to 65535, got 65536"),
        (("--workers", "0"), "--workers: expected a number above 0, got 0"),
    ],
)
def test_arguments_with_a_mistake_are_one_line(arguments: tuple[str, ...], part: str, tmp_path: Path) -> None:
    status, lines = run_script(tmp_path, *arguments)
    assert (status, len(lines)) == (2, 1)
    assert part in lines[0]


@pytest.mark.slow
def test_beyond_localhost_logins_are_on_and_without_a_password_nothing_starts(tmp_path: Path) -> None:
    status, lines = run_script(tmp_path, "--host", "0.0.0.0")
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith("error: MLFLOW_AUTH_ADMIN_PASSWORD: expected the administrator's password")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "short"}, "MLFLOW_AUTH_ADMIN_PASSWORD: expected at least 12"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": ""}, "got 0; try openssl rand"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "long enough to be one"}, "MLFLOW_FLASK_SERVER_SECRET_KEY: expected"),
    ],
)
def test_secrets_that_are_none_are_refused_and_not_shown(settings: dict[str, str], part: str) -> None:
    with pytest.raises(DirpruneError) as raised:
        preflight.check_secrets({"MLFLOW_AUTH_CONFIG_PATH": "auth.ini", **settings})
    assert part in str(raised.value)
    assert "short" not in str(raised.value)
    preflight.check_secrets(settings)  # without logins nobody asks


@pytest.mark.slow
def test_database_of_an_older_schema_is_refused_until_it_is_upgraded(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    preflight.check_store(uri)
    preflight.check_store(f"sqlite:///{tmp_path / 'new.db'}")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        (newest,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = 'cc1f77228345'")
    with pytest.raises(DirpruneError, match=f"schema {newest} of this MLflow, got cc1f77228345; back it up"):
        preflight.check_store(uri)
    asked: list[str] = []
    monkeypatch.setattr("mlflow.db.upgrade.callback", asked.append)
    preflight.upgrade(uri)
    assert asked == [uri]


@pytest.mark.parametrize(
    ("uri", "shown", "said"),
    [
        (
            "postgresql://me:hunter2@127.0.0.1:1/mlflow",
            "postgresql://127.0.0.1:1/mlflow",
            "Connection refused",
        ),
        ("nosuch://me:hunter2@host/mlflow", "nosuch://host/mlflow", "Can't load plugin"),
        ("sqlite:////proc/none/mlflow.db", "sqlite:////proc/none/mlflow.db", "unable to open database file"),
        (f"sqlite:///{__file__}", f"sqlite:///{__file__}", "file is not a database"),
    ],
)
def test_database_that_cannot_be_opened_is_one_line_without_its_password(
    uri: str, shown: str, said: str
) -> None:
    with pytest.raises(DirpruneError) as raised:
        preflight.check_store(uri)
    line = str(raised.value)
    assert line.startswith(f"expected a database that opens at {shown}, got: ")
    assert said in line
    assert line.endswith("; check that it runs, MLFLOW_BACKEND_STORE_URI and the login")
    for part in ("hunter2", "sqlalche.me", "OperationalError", "DatabaseError", "SQL:", "\n"):
        assert part not in line


@pytest.mark.slow
def test_server_whose_database_is_away_says_so_in_one_line_and_ends(tmp_path: Path) -> None:
    uri = f"postgresql://me:hunter2@127.0.0.1:{find_free_port()}/mlflow"
    status, lines = run_script(tmp_path, "--port", str(find_free_port()), MLFLOW_BACKEND_STORE_URI=uri)
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(
        f"error: expected a database that opens at {uri.replace('me:hunter2@', '')}, got"
    )
    assert "sqlalche.me" not in lines[0]


@pytest.mark.slow
def test_database_that_refuses_the_login_is_one_line(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "a-wrong-one")
    with pytest.raises(DirpruneError, match="password authentication failed"):
        preflight.check_store(postgres.uri)


def use(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**store.environment, "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_missing_bucket_is_named_and_can_be_made(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(objects, monkeypatch)
    with pytest.raises(DirpruneError, match="store s3://absent cannot be used: there is no such bucket"):
        preflight.check_artifacts("s3://absent")
    for _ in range(2):
        preflight.make_bucket("s3://absent/below")
    preflight.check_artifacts("s3://absent/below")
    assert "Contents" not in objects.client.list_objects_v2(Bucket="absent")


@pytest.mark.slow
@pytest.mark.parametrize("address", ["S3://capital", "s3://option?x=1", "s3://fragment#x"])
def test_bucket_is_named_as_in_the_address_without_scheme_and_options(
    address: str, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(objects, monkeypatch)
    preflight.make_bucket(address)
    name = address.removesuffix("?x=1").removesuffix("#x").rpartition("/")[2]
    assert name in [bucket["Name"] for bucket in objects.client.list_buckets()["Buckets"]]


@pytest.mark.slow
@pytest.mark.parametrize("code", ["XMinioStorageFull", "QuotaExceeded"])
def test_full_object_store_is_warned_of_where_it_can_be_read(
    code: str, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(objects, monkeypatch)
    preflight.make_bucket("s3://bucket")
    with objects.full(code):
        warning = preflight.check_artifacts("s3://bucket")
        with pytest.raises(DirpruneError, match="cannot be used: Failed to list"):
            preflight.check_artifacts("s3://no-such-bucket")
    assert warning is not None
    assert "nothing can be stored in the artifact store s3://bucket: it is full" in warning
    assert "\n" not in warning
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in warning
    with objects.full("AccessDenied"), pytest.raises(DirpruneError, match=r"cannot be used: .*AccessDenied"):
        preflight.check_artifacts("s3://bucket")
    assert preflight.check_artifacts("s3://bucket") is None


def test_object_store_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    use(ObjectStore(f"http://127.0.0.1:{find_free_port()}"), monkeypatch)
    with pytest.raises(DirpruneError, match="check MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_S3_ENDPOINT_URL"):
        preflight.check_artifacts("s3://bucket")


def test_files_on_this_machine_are_tried_and_nothing_stays(tmp_path: Path) -> None:
    preflight.check_artifacts(str(tmp_path / "artifacts"))
    assert list((tmp_path / "artifacts").iterdir()) == []
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DirpruneError, match=r"the artifact store .* cannot be used"):
        preflight.check_artifacts(str(tmp_path / "file"))


def test_a_temporary_folder_that_takes_nothing_is_not_taken_for_the_artifact_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "away"))
    with pytest.raises(DirpruneError, match=r"expected room for a temporary file, got: .*away"):
        preflight.check_artifacts(str(tmp_path / "artifacts"))


def test_port_on_which_something_listens_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            DirpruneError, match=rf"got 127\.0\.0\.1:{port} \(Address already in use\); try ano"
        ):
            preflight.check_port("127.0.0.1", port)
    preflight.check_port("127.0.0.1", port)
    with pytest.raises(DirpruneError, match="expected a port of this machine"):
        preflight.check_port("192.0.2.1", port)


def test_server_that_is_away_is_not_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_PORT", str(find_free_port()))
    assert health.main() == 1
    assert "no answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    "allowed",
    [
        "",
        "mlflow.example.org,mlflow.example.org:5000",
        "*.example.org",
        "*.example.org, a:5000",
        "*",
        "a,*",
        "a:*",
    ],
)
def test_health_check_calls_a_server_by_a_name_that_it_takes(
    allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", allowed)
    host = health.choose_host(allowed, "5000")
    assert is_allowed_host_header(get_allowed_hosts(), host)
    assert urllib.parse.urlsplit(f"http://{host}").port in (None, 5000)
