"""A database that an older MLflow made: refused, upgraded by `serve.sh`, and all of a study is there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from dirprune.errors import TrackingError
from dirprune.study.observer import StudySummary
from dirprune.tracking import check_server, default_tracking_uri, sync_study
from tests.deployment.test_preflight import run_script
from tests.tracking.everything import read_everything
from tests.tracking.test_mlflow_tracker import make_records

OLDER = "6953534de441"  # MLflow 3.0, the oldest that has logged models


def make_older(path: Path, newer: Path) -> None:
    """Make a database by MLflow's own migrations up to `OLDER`, with the rows that a newer one has."""
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    config = _get_alembic_config(str(engine.url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLDER)
    engine.dispose()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("ATTACH ? AS newer", (str(newer),))
        tables = database.execute(
            "SELECT name FROM main.sqlite_master JOIN newer.sqlite_master USING (name, type) "
            "WHERE type = 'table' AND name != 'alembic_version'"
        ).fetchall()
        for (table,) in tables:
            columns = [
                {name for _, name, *_ in database.execute(f"PRAGMA {schema}.table_info({table})")}
                for schema in ("main", "newer")
            ]
            shared = ", ".join(sorted(columns[0] & columns[1]))
            database.execute(f"DELETE FROM main.{table}")
            database.execute(f"INSERT INTO main.{table} ({shared}) SELECT {shared} FROM newer.{table}")


@pytest.mark.slow
@pytest.mark.usefixtures("without_models")
def test_study_in_a_database_of_an_older_mlflow_is_whole_after_the_upgrade(
    summary: StudySummary, output: Path, tmp_path: Path
) -> None:
    sync_study(summary, make_records(), default_tracking_uri(output))
    before = read_everything(default_tracking_uri(output))
    assert len(before["runs"]) == 6
    folder = tmp_path / "server"
    folder.mkdir()
    make_older(folder / "mlflow.db", output / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.raises(TrackingError) as refused:
        check_server(uri)
    assert "\n" not in str(refused.value)
    assert f"of this MLflow, got {OLDER}; back it up" in str(refused.value)
    assert f"db upgrade {uri}" in str(refused.value)
    status, lines = run_script(tmp_path)
    assert (status, len(lines)) == (2, 1)
    assert f"got {OLDER}; back it up, then bring it there with serve.sh --upgrade" in lines[0]
    status, lines = run_script(tmp_path, "--upgrade")
    assert status == 0, lines
    check_server(uri)
    assert read_everything(uri) == before
    sync_study(summary, make_records(), uri)
    assert read_everything(uri)["runs"].keys() == before["runs"].keys()
