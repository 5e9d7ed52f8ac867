"""A database that an older MLflow made: refused, upgraded by `serve.sh`, and all of a study is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from dirprune.errors import TrackingError
from dirprune.server.schema import find_other_schema
from dirprune.study.observer import StudySummary
from dirprune.tracking import check_server, default_tracking_uri, sync_study
from tests.deployment.conftest import PASSWORD, SCRIPT, SECRET, environment_for
from tests.deployment.readme import read_block, run_commands
from tests.deployment.services import Postgres
from tests.deployment.test_preflight import run_script
from tests.tracking.everything import read_everything
from tests.tracking.test_mlflow_tracker import make_records

OLDER = "6953534de441"  # MLflow 3.0, the oldest that has logged models


def make_older(uri: str, newer_uri: str) -> None:
    """Make a database by MLflow's own migrations up to `OLDER`, with the rows that a newer one has."""
    older, newer = sqlalchemy.create_engine(uri), sqlalchemy.create_engine(newer_uri)
    Base.metadata.create_all(older)
    config = _get_alembic_config("")
    with older.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLDER)
    tables, rows = sqlalchemy.MetaData(), sqlalchemy.MetaData()
    tables.reflect(older)
    rows.reflect(newer, only=lambda name, _: name in tables.tables and name != "alembic_version")
    with older.begin() as target, newer.connect() as source:
        for table in reversed([tables.tables[table.name] for table in rows.sorted_tables]):
            target.execute(table.delete())
        for table in rows.sorted_tables:
            columns = [column for column in table.c if column.name in tables.tables[table.name].c]
            if found := source.execute(sqlalchemy.select(*columns)).mappings().all():
                target.execute(tables.tables[table.name].insert(), [dict(row) for row in found])
    older.dispose()
    newer.dispose()


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
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    make_older(uri, default_tracking_uri(output))
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


DOCKER = """#!/bin/bash -eu
# What Compose would run in the containers of the database and the server, without containers.
[ "$1 $2 $3" = "compose --file mlflow/compose.yaml" ]
shift 3
echo "$*" >>steps
case "$*" in
  "exec -T database "*) shift 3 && exec "$@" ;;
  "run --rm server "*) shift 3 && exec bash {script} --folder server "$@" ;;
  build | "stop server" | "up --detach") ;;
  *) exit 9 ;;
esac
"""


@pytest.mark.slow
@pytest.mark.usefixtures("without_models")
def test_readme_upgrades_a_server_in_containers_and_brings_it_back_from_its_backup(
    summary: StudySummary,
    output: Path,
    tmp_path: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sync_study(summary, make_records(), default_tracking_uri(output))
    before = read_everything(default_tracking_uri(output))
    password = postgres.environment["PGPASSWORD"]
    postgres.query(f"CREATE ROLE mlflow SUPERUSER LOGIN PASSWORD '{password}'")
    postgres.query("DROP DATABASE IF EXISTS mlflow WITH (FORCE)")  # of another test
    postgres.query("CREATE DATABASE mlflow")
    monkeypatch.setenv("PGPASSWORD", password)
    uri = f"postgresql://mlflow@127.0.0.1:{postgres.port}/mlflow"
    make_older(uri, default_tracking_uri(output))
    content = "SELECT relname, (SELECT count(*) FROM runs) FROM pg_stat_user_tables ORDER BY 1"
    older = postgres.run("psql", uri, "--tuples-only", "-c", content)
    settings = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGPASSWORD": password,
        "PATH": f"{tmp_path}:{postgres.client_environment['PATH']}",
    }
    docker = tmp_path / "docker"
    docker.write_text(DOCKER.replace("{script}", str(SCRIPT)))
    docker.chmod(0o755)
    run_commands(read_block("run --rm server"), tmp_path, environment_for(settings))
    steps = [step.split(" ")[0] for step in (tmp_path / "steps").read_text().splitlines()]
    assert steps == ["build", "stop", "exec", "run", "up"]
    check_server(uri)
    assert read_everything(uri) == before
    assert "admin" in postgres.run("psql", uri, "--tuples-only", "-c", "SELECT username FROM users")
    # What the upgrade has added is gone after the restore: else the next one would meet it.
    run_commands(read_block("-d mlflow --exit-on-error"), tmp_path, environment_for(settings))
    other = find_other_schema(uri)
    assert other is not None
    assert (other.found, other.is_newer) == (OLDER, False)
    assert postgres.run("psql", uri, "--tuples-only", "-c", content) == older
