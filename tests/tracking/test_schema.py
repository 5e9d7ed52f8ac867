"""A database that another MLflow made is refused with what helps, and left as it is."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from dirprune.errors import TrackingError
from dirprune.server import preflight, schema
from dirprune.study.observer import StudySummary
from dirprune.tracking import check_default_store, check_name, check_server, default_tracking_uri
from dirprune.tracking.store import RunStore
from tests.deployment.test_upgrade import OLDER, make_older

NEWER = "ffffffffffff"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "SETTLING_S", 0.1)


@pytest.fixture(scope="module")
def older(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("older") / "mlflow.db"
    make_older(f"sqlite:///{path}", f"sqlite:///{empty_store}")
    return path


def read_version(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def write_version(path: Path, version: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))


@pytest.mark.parametrize("way", ["default", "given", "driver", "runs", "name"])
def test_older_store_is_refused_and_not_upgraded(
    way: str, older: Path, output: Path, summary: StudySummary
) -> None:
    path = output / "mlflow.db"
    shutil.copy(older, path)
    uri = default_tracking_uri(output)
    open_it = {
        "default": lambda: check_default_store(output),
        "given": lambda: check_server(uri),
        "driver": lambda: check_server(uri.replace("sqlite://", "sqlite+pysqlite://")),
        "runs": lambda: RunStore(uri, output, summary.study_id),
        "name": lambda: check_name(uri, summary.name, summary.objectives, None),
    }
    with pytest.raises(TrackingError, match=rf"got {OLDER}; back it up, then .* db upgrade sqlite"):
        open_it[way]()
    assert read_version(path) == OLDER


def test_newer_store_is_not_to_be_upgraded_but_a_newer_mlflow_installed(output: Path) -> None:
    write_version(output / "mlflow.db", NEWER)
    uri = default_tracking_uri(output)
    for call in (check_server, preflight.check_store, preflight.upgrade):
        with pytest.raises(TrackingError) as refused:
            call(uri)
        assert f"got {NEWER} of a newer one; install the MLflow that made it" in str(refused.value)
        assert "back it up" not in str(refused.value)
    assert read_version(output / "mlflow.db") == NEWER


def test_store_that_another_study_is_setting_up_is_waited_for(output: Path) -> None:
    path = output / "mlflow.db"
    newest = read_version(path)
    write_version(path, OLDER)
    setting_up = threading.Timer(0.05, write_version, (path, newest))
    setting_up.start()
    check_default_store(output)
    setting_up.join()


def test_default_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    check_default_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_default_store_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be used: .*not a database"):
        check_default_store(tmp_path)


def test_file_of_a_driver_that_is_named_is_made_where_there_is_none(tmp_path: Path) -> None:
    check_server(f"sqlite+pysqlite:///{tmp_path}/new/mlflow.db")
    assert (tmp_path / "new").is_dir()
    with pytest.raises(TrackingError, match="an absolute path has four slashes"):
        check_server("sqlite+pysqlite://mlflow.db")
