"""A study beside a tracking store that an older MLflow made: refused before anything is done or upgraded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dirprune.records.folder import StudyFolder
from dirprune.tuning import storage
from tests.cli.conftest import Run
from tests.deployment.test_upgrade import OLDER, make_older
from tests.tracking.test_schema import read_version

TOY = Path(__file__).parent.parent / "integration" / "toy_study.py"


@pytest.mark.parametrize("command", ["abandon", "explain", "sync"])
def test_command_on_a_study_beside_an_older_store(
    command: str, run: Run, folder: StudyFolder, empty_store: Path
) -> None:
    make_older(folder.output / "mlflow.db", empty_store)
    refused = run(command, folder.root)
    assert refused.status == 2
    assert refused.errors.count("\n") == 1
    assert f"got {OLDER}; back it up" in refused.errors
    assert read_version(folder.output / "mlflow.db") == OLDER
    assert storage.read_records(folder)[3].state == "RUNNING"


def test_study_beside_an_older_store(tmp_path: Path, empty_store: Path) -> None:
    (tmp_path / "output").mkdir()
    make_older(tmp_path / "output" / "mlflow.db", empty_store)
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
    assert read_version(tmp_path / "output" / "mlflow.db") == OLDER
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["mlflow.db"]
