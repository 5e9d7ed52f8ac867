"""A study beside a tracking store that an older MLflow made: refused before anything is done or upgraded."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dirprune.records.folder import StudyFolder
from dirprune.tracking import names
from dirprune.tuning import storage
from tests.cli.conftest import Run
from tests.deployment.test_upgrade import OLDER, make_older
from tests.tracking.test_schema import read_version

TOY = Path(__file__).parent.parent / "integration" / "toy_study.py"


@pytest.mark.parametrize(
    "command", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("abandon", "explain")), "sync"]
)
def test_command_on_a_study_beside_an_older_store(
    command: str, run: Run, folder: StudyFolder, empty_store: Path
) -> None:
    make_older(f"sqlite:///{folder.output}/mlflow.db", f"sqlite:///{empty_store}")
    with closing(sqlite3.connect(folder.output / "mlflow.db")) as store, store:
        store.execute("INSERT INTO tags (run_uuid, key, value) VALUES ('run', ?, '1')", (names.STUDY_ID,))
    refused = run(command, folder.root)
    assert refused.status == 2
    assert refused.errors.count("\n") == 1
    assert f"got {OLDER}; back it up" in refused.errors
    assert "--no-tracking" not in refused.errors
    assert read_version(folder.output / "mlflow.db") == OLDER
    assert storage.read_records(folder)[3].state == "RUNNING"


@pytest.mark.parametrize("is_database", [True, False])
@pytest.mark.parametrize("command", ["abandon", "explain"])
def test_study_that_is_not_tracked_needs_no_store(
    command: str, is_database: bool, run: Run, folder: StudyFolder, empty_store: Path
) -> None:
    store = folder.output / "mlflow.db"
    if is_database:
        make_older(f"sqlite:///{store}", f"sqlite:///{empty_store}")
    else:
        store.write_text("no database")
    before = store.read_bytes()
    done = run(command, folder.root)
    if command == "abandon":
        assert (done.status, done.output) == (0, "abandoned: 1 trial (3)\n")
    else:  # these are too few trials to explain
        assert "mlflow.db" not in done.errors
    assert store.read_bytes() == before


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "nosuch://host", "postgresql://127.0.0.1:1/db"])
def test_command_without_the_option_does_not_advise_no_tracking(
    address: str, run: Run, folder: StudyFolder
) -> None:
    refused = run("abandon", folder.root, "--tracking-uri", address)
    assert refused.status == 2
    assert "check --tracking-uri" in refused.errors
    assert "--no-tracking" not in refused.errors


@pytest.mark.slow
def test_study_beside_an_older_store(tmp_path: Path, empty_store: Path) -> None:
    (tmp_path / "output").mkdir()
    make_older(f"sqlite:///{tmp_path}/output/mlflow.db", f"sqlite:///{empty_store}")
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    refused = subprocess.run(
        [sys.executable, TOY, "--trials", "1"],
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.count("\n") == 1
    assert f"got {OLDER}; back it up" in refused.stderr
    assert refused.stderr.endswith(", or go on with --no-tracking\n")
    assert read_version(tmp_path / "output" / "mlflow.db") == OLDER
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["mlflow.db"]
