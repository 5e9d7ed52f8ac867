"""A study whose trials lie in PostgreSQL, where a wrong password is said and never shown."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dirprune.addresses import holds_password
from tests.deployment.services import POSTGRES_PASSWORD, USER, Postgres, find_postgres, run_postgres

pytestmark = pytest.mark.slow
TOY = Path(__file__).parent.parent / "integration" / "toy_study.py"
WRONG = "Xyzzy-plugh"


VARIABLE = "DIRPRUNE_OPTUNA_STORAGE"


def run(folder: Path, address: str, *more: str, password: str = "") -> subprocess.CompletedProcess[str]:
    """Run the toy study with its trials in a database; an address with a password is in the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if password:
        environment["PGPASSWORD"] = password
    if holds_password(address):
        environment[VARIABLE] = address
    else:
        more = ("--optuna-storage", address, *more)
    return subprocess.run(
        [sys.executable, TOY, "--trials", "1", "--no-tracking", *more],
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
    with ThreadPoolExecutor() as at_once:
        begun = [
            at_once.submit(run, tmp_path, in_address),
            at_once.submit(run, tmp_path, postgres.uri, password=WRONG),
        ]
    for done in (one.result() for one in begun):
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


STATES = "SELECT number, state, datetime_complete FROM trials WHERE state <> 'WAITING' ORDER BY number"


def read_states(database: Postgres) -> dict[int, tuple[str, str]]:
    """Return the state of each trial that was started and when it ended, by number."""
    rows = [line.split("|") for line in database.query(STATES).splitlines()]
    assert len({row[0] for row in rows}) == len(rows)
    return {int(number): (state, ended) for number, state, ended in rows}


@pytest.mark.skipif(find_postgres() is None, reason="needs PostgreSQL's programs")
@pytest.mark.timeout(1800)
def test_a_database_that_is_stopped_ends_the_study_in_order_and_it_goes_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    with run_postgres() as database:
        address = database.uri.replace(USER, f"{USER}:{POSTGRES_PASSWORD}")
        trials = ["--trials", "6", "--dense-epochs", "1"]
        log = tmp_path / "log.txt"
        with log.open("wb") as printed:
            driver = subprocess.Popen(
                [sys.executable, TOY, "--no-tracking", *trials],
                cwd=tmp_path,
                env={**os.environ, "TOY_SECONDS": "0.3", VARIABLE: address},
                stdout=printed,
                stderr=printed,
            )
        try:
            wait_for_a_trial_in_the_middle(database, driver, log)
            database.stop()
            try:
                driver.wait(300)
            finally:
                database.start()
        finally:
            driver.kill()
            driver.wait()
        said = log.read_text()
        assert driver.returncode == 2, said
        assert "Traceback" not in said
        assert POSTGRES_PASSWORD not in said
        last = said.splitlines()[-1]
        place = database.uri.replace(f"{USER}@", "")
        assert last.startswith("error: the study ended by itself: cannot read or write the trials in ")
        assert f" in {place} (" in last
        assert last.endswith("; when it answers again, the same command with --resume goes on")
        before = read_states(database)
        assert {state for state, _ in before.values()} <= {"COMPLETE", "PRUNED", "RUNNING"}
        assert "RUNNING" in {state for state, _ in before.values()}, "nothing was left to go on with"
        resumed = run(tmp_path, address, *trials, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        after = read_states(database)
        assert sorted(after) == list(range(6))
        assert {state for state, _ in after.values()} <= {"COMPLETE", "PRUNED"}
        ended = {number: trial for number, trial in before.items() if trial[0] != "RUNNING"}
        assert {number: after[number] for number in ended} == ended, "what had ended is not told again"


def wait_for_a_trial_in_the_middle(database: Postgres, driver: subprocess.Popen[bytes], log: Path) -> None:
    """Return when a trial has ended and another one runs."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and driver.poll() is None:
        if has_trials(database):
            states = [state for state, _ in read_states(database).values()]
            if {"COMPLETE", "RUNNING"} <= set(states):
                return
        time.sleep(0.3)
    raise TimeoutError(log.read_text())


def has_trials(database: Postgres) -> bool:
    """Whether the study has made its tables."""
    return bool(database.query("SELECT to_regclass('trials')").strip())
