"""A password in the address of a database or a server is never shown, logged or stored."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dirprune.tracking.server import describe_uri, hide_secret, ui_command

TOY = Path(__file__).parent.parent / "integration" / "toy_study.py"
PASSWORD = "Xyzzy%21plugh"
DECODED = "Xyzzy!plugh"


@pytest.mark.parametrize("option", ["--optuna-storage", "--tracking-uri"])
@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/trials",
        f"http://me:{PASSWORD}@127.0.0.1:1",
    ],
)
def test_password_of_a_database_that_refuses_us_is_nowhere(tmp_path: Path, option: str, address: str) -> None:
    more = ["--no-tracking"] if option == "--optuna-storage" else []
    done = subprocess.run(
        [sys.executable, TOY, "--trials", "1", option, address, *more],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2, done.stderr
    # Said before the data are loaded and the dense network is trained, and nothing else is said.
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    written = [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    for text in (done.stdout, done.stderr, *written):
        assert PASSWORD not in text
        assert DECODED not in text


@pytest.mark.parametrize("option", ["--storage", "--data"])
@pytest.mark.parametrize("secret", [PASSWORD, f"{PASSWORD}/with/slashes"])
def test_key_of_a_store_in_an_address_is_refused_and_nowhere(
    tmp_path: Path, option: str, secret: str
) -> None:
    done = subprocess.run(
        [sys.executable, TOY, "--trials", "1", "--no-tracking", option, f"s3://KEYID:{secret}@bucket/x"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: expected {option} without a password, got one in s3://...; ")
    assert done.stderr.count("\n") == 1
    written = [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    for text in (done.stdout, done.stderr, *written):
        assert PASSWORD not in text
        assert "KEYID" not in text


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
    for text in (ui_command(address), describe_uri(address), hide_secret(said, address)):
        assert "host" in text
        assert PASSWORD not in text
        assert DECODED not in text
