"""A study whose trials lie in PostgreSQL, where a wrong password is said and never shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment.services import POSTGRES_PASSWORD, USER, Postgres

pytestmark = pytest.mark.slow
TOY = Path(__file__).parent.parent / "integration" / "toy_study.py"
WRONG = "Xyzzy-plugh"


def run(folder: Path, address: str, *more: str, password: str = "") -> subprocess.CompletedProcess[str]:
    """Run the toy study with its trials in a database."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if password:
        environment["PGPASSWORD"] = password
    return subprocess.run(
        [sys.executable, TOY, "--trials", "1", "--no-tracking", "--optuna-storage", address, *more],
        cwd=folder,
        env={**environment, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_wrong_password_is_said_in_one_line_that_does_not_show_it(
    tmp_path: Path, postgres: Postgres
) -> None:
    in_address = postgres.uri.replace(USER, f"{USER}:{WRONG}")
    for done in (run(tmp_path, in_address), run(tmp_path, postgres.uri, password=WRONG)):
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ")
        assert "password" in done.stderr
        assert f"at {postgres.uri.replace(USER + '@', '')}, got" in done.stderr
        assert WRONG not in done.stderr
    assert not (tmp_path / "output").exists()


def test_the_right_password_keeps_the_trials_there_and_nowhere_else(
    tmp_path: Path, postgres: Postgres
) -> None:
    address = postgres.uri.replace(USER, f"{USER}:{POSTGRES_PASSWORD}")
    assert run(tmp_path, address).returncode == 0
    resumed = run(tmp_path, postgres.uri, "--resume", "--trials", "2", password=POSTGRES_PASSWORD)
    assert resumed.returncode == 0, resumed.stderr
    assert postgres.query("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").strip() == "2"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or POSTGRES_PASSWORD.encode() not in path.read_bytes(), path
    again = run(tmp_path, postgres.uri, "--resume")
    assert again.returncode == 2
    assert "password" in again.stderr
