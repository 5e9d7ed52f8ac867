"""A password in the address of a database or a server is never shown, logged or stored."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dirprune.addresses import describe_address, hide_secrets
from dirprune.tracking import ui_command

TOY = Path(__file__).parent.parent / "integration" / "toy_study.py"
PASSWORD = "Xyzzy%21plugh"
DECODED = "Xyzzy!plugh"


def run_refused(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a study that is refused, at home in a folder."""
    done = subprocess.run(
        [sys.executable, TOY, "--trials", "1", *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")},
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


@pytest.mark.parametrize("option", ["--optuna-storage", "--tracking-uri"])
@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/trials",
        f"http://me:{PASSWORD}@127.0.0.1:1",
        f"http://me:1234/{PASSWORD}@127.0.0.1:1",
    ],
)
def test_password_of_a_database_that_refuses_us_is_nowhere(tmp_path: Path, option: str, address: str) -> None:
    more = ["--no-tracking"] if option == "--optuna-storage" else []
    done = run_refused(tmp_path, option, address, *more)
    # Said before the data are loaded and the dense network is trained, and nothing else is said.
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert_nowhere(tmp_path, done, PASSWORD, DECODED)


@pytest.mark.parametrize("option", ["--storage", "--data"])
@pytest.mark.parametrize("secret", [PASSWORD, f"{PASSWORD}/with/slashes", f"12345/{PASSWORD}"])
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
