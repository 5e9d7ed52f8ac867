"""A password in the address of a database or a server is never shown, logged or stored."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from dirprune.addresses import describe_address, hide_secrets
from dirprune.cli.errors import run_command
from dirprune.cli.study import make_command
from dirprune.records.folder import StudyFolder
from dirprune.tracking import ui_command
from tests.cli.conftest import Run
from tests.integration import toy_study

TOY = Path(__file__).parent.parent / "integration" / "toy_study.py"
PASSWORD = "Xyzzy%21plugh"
DECODED = "Xyzzy!plugh"


VARIABLES = {"--optuna-storage": "DIRPRUNE_OPTUNA_STORAGE", "--tracking-uri": "MLFLOW_TRACKING_URI"}


def first_is_fast(options: Iterable[str], secrets: Iterable[str]) -> list[Any]:
    """Return every option with every secret; all but the first are slow, as each starts a process."""
    first, *others = itertools.product(options, secrets)
    return [first, *(pytest.param(*other, marks=pytest.mark.slow) for other in others)]


def run_refused(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a study that is refused, at home in a folder."""
    done = subprocess.run(
        [sys.executable, TOY, "--trials", "1", *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), **settings},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2, done.stderr
    return done


def assert_nowhere(folder: Path, done: subprocess.CompletedProcess[str], *secrets: str) -> None:
    """Check that secrets are neither in what was printed nor in any file."""
    written = [path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()]
    for text in (done.stdout, done.stderr, *written):
        assert all(secret not in text for secret in secrets)


@pytest.mark.parametrize(
    ("option", "address"),
    first_is_fast(
        VARIABLES,
        [
            f"postgresql://me:{PASSWORD}@127.0.0.1:1/trials",
            f"http://me:{PASSWORD}@127.0.0.1:1",
            f"http://me:1234/{PASSWORD}@127.0.0.1:1",
        ],
    ),
)
def test_password_of_a_database_that_refuses_us_is_nowhere(tmp_path: Path, option: str, address: str) -> None:
    more = ["--no-tracking"] if option == "--optuna-storage" else []
    done = run_refused(tmp_path, *more, **{VARIABLES[option]: address})
    # Said before the data are loaded and the dense network is trained, and nothing else is said.
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "127.0.0.1" in done.stderr
    assert_nowhere(tmp_path, done, PASSWORD, DECODED)


@pytest.mark.parametrize(
    ("option", "address", "ways"),
    [
        (
            "--optuna-storage",
            f"postgresql+psycopg://me:{PASSWORD}@host/trials",
            "in PGPASSWORD or ~/.pgpass, or the whole address in DIRPRUNE_OPTUNA_STORAGE",
        ),
        (
            "--optuna-storage",
            f"mysql://me@host/trials?password={PASSWORD}",
            "the whole address in DIRPRUNE_OPTUNA_STORAGE",
        ),
        (
            "--tracking-uri",
            f"http://me:{PASSWORD}@host",
            "in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or the whole address in MLFLOW_TRACKING_URI",
        ),
    ],
)
def test_password_on_a_command_line_is_refused_with_the_places_where_it_belongs(
    run: Run,
    folder: StudyFolder,
    capsys: pytest.CaptureFixture[str],
    option: str,
    address: str,
    ways: str,
) -> None:
    assert run_command(make_command(toy_study.spec), [option, address]) == 2
    said = [capsys.readouterr().err]
    if option == "--optuna-storage":
        commands = ["front", "abandon", "explain", "export", "sync"]
    else:
        commands = ["abandon", "explain", "sync"]
    for command in commands:
        result = run(command, folder.root, option, address)
        assert (result.status, result.output) == (2, "")
        said.append(result.errors)
    scheme = address.partition("://")[0]
    assert set(said) == {
        f"error: expected {option} without a password, got what may be one in {scheme}://..., where all "
        f"users and Ray's dashboard see it; give it {ways}\n"
    }


def test_address_with_a_user_or_the_file_of_a_password_may_be_on_a_command_line_and_any_in_the_environment(
    run: Run, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ("postgresql://me@host/trials", "postgresql://host/trials?passfile=/home/me/pass")
    results = [run("front", folder.root, "--optuna-storage", address) for address in typed]
    monkeypatch.setenv(VARIABLES["--optuna-storage"], f"postgresql://me:{PASSWORD}@host/trials")
    results.append(run("front", folder.root))
    for result in results:
        assert "the trials of study lenet are kept in journal, got postgresql://host/trials" in result.errors
        assert PASSWORD not in result.errors


@pytest.mark.parametrize(
    ("option", "secret"),
    first_is_fast(["--storage", "--data"], [f"12345/{PASSWORD}", PASSWORD, f"{PASSWORD}/with/slashes"]),
)
def test_key_of_a_store_in_an_address_is_refused_and_nowhere(
    tmp_path: Path, option: str, secret: str
) -> None:
    done = run_refused(tmp_path, "--no-tracking", option, f"s3://KEYID:{secret}@bucket/x")
    assert done.stderr.startswith(f"error: expected {option} without a password, got one in s3://...; ")
    assert done.stderr.count("\n") == 1
    assert_nowhere(tmp_path, done, PASSWORD, "KEYID")


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://me:{PASSWORD}@host/db",
        f"postgresql://host/db?password={PASSWORD}",
        f"http://me:{PASSWORD}@host:5000",
        f"mysql+pymysql://me:{PASSWORD}@host/db?ssl_token={PASSWORD}",
    ],
)
def test_no_line_about_a_store_shows_its_password(address: str) -> None:
    said = f"OperationalError: {address} refused {DECODED}"
    for text in (ui_command(address), describe_address(address), hide_secrets(said, address)):
        assert "host" in text
        assert PASSWORD not in text
        assert DECODED not in text
