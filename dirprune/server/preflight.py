"""What must hold before an MLflow server starts; each mistake is said in one line.

`mlflow/serve.sh`, on one machine and in the container, runs `python -m dirprune.server.preflight` first.
Everything is read from the environment under MLflow's own names: `ps` would show a password in an argument.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import socket
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dirprune.addresses import describe_address
from dirprune.errors import ConfigurationError, DirpruneError, TrackingError, one_line
from dirprune.server.schema import find_other_schema

MISTAKE = 2
MIN_PASSWORD = 12
"""Least characters of the administrator's password; MLflow itself asks for as many."""
_STORE, _ARTIFACTS = "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"
_LOGINS, _SECRET = "MLFLOW_AUTH_CONFIG_PATH", "MLFLOW_FLASK_SERVER_SECRET_KEY"
_UPGRADE = "serve.sh --upgrade"
_PROBE = "dirprune-write-check.txt"
_FAILING = ("InternalError", "500")
"""What a store says of a failure of its own: Versity's gateway has no other name for a full disk."""
_PATIENCE = {
    "AWS_MAX_ATTEMPTS": "2",
    "PGCONNECT_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def check_secrets(environment: Mapping[str, str]) -> None:
    """Refuse a server with logins whose secrets are missing or too short to be any.

    Args:
        environment: The variables of the process.
    Raises:
        ConfigurationError: Naming the variable, never its value.
    """
    if not environment.get(_LOGINS):
        return
    password = environment.get("MLFLOW_AUTH_ADMIN_PASSWORD")
    if password is not None and len(password) < MIN_PASSWORD:
        raise ConfigurationError(
            f"MLFLOW_AUTH_ADMIN_PASSWORD: expected at least {MIN_PASSWORD} characters, "
            f"got {len(password)}; try openssl rand -hex 24"
        )
    if len(environment.get(_SECRET, "")) < MIN_PASSWORD:
        raise ConfigurationError(
            f"{_SECRET}: expected at least {MIN_PASSWORD} characters, "
            f"got {len(environment.get(_SECRET, ''))}; try openssl rand -hex 24"
        )


def check_port(host: str, port: int) -> None:
    """Return when a server can listen there; MLflow itself would say so after it seemed to have started.

    Raises:
        ConfigurationError: If another program listens there, or the host is none of this machine's.
    """
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return
    except OSError as error:
        said = str(error.strerror).partition(" (while")[0]  # Python repeats the address there
        raise ConfigurationError(
            f"expected a port of this machine on which nothing listens, got {host}:{port} ({said}); "
            "try another --port"
        ) from error


def check_store(uri: str) -> None:
    """Return when a database can be opened and has this MLflow's schema, or none yet.

    Raises:
        TrackingError: If it cannot be opened, or is of another schema.
    """
    shown = describe_address(uri)
    try:
        other = find_other_schema(uri)
    except Exception as error:  # whatever the drivers raise, or a driver that is missing
        said = one_line(error, address=uri)
        raise TrackingError(
            f"expected a database that opens at {shown}, got: {said}; "
            f"check that it runs, {_STORE} and the login"
        ) from error
    if other is not None:
        raise TrackingError(f"the database {shown} cannot be used: {other.advise(_UPGRADE, _STORE)}")


def check_artifacts(uri: str) -> str | None:
    """Return when a file could be stored in the artifact store and read again; it is deleted.

    A store that only takes nothing more lets everyone look at what it has and make room in it.

    Returns:
        What to warn of: that nothing can be stored, and why; None if all is well.
    Raises:
        TrackingError: If the store cannot be reached, lacks its bucket or refuses us.
    """
    try:
        folder = tempfile.TemporaryDirectory()
        probe = Path(folder.name) / _PROBE
        probe.write_text("written by the check before a start\n")
    except OSError as error:  # nothing that the artifact store is to blame for
        raise TrackingError(
            f"expected room for a temporary file, got: {one_line(error)}; make some, or set TMPDIR"
        ) from error
    with folder:
        try:
            return _try_artifacts(uri, probe)
        except Exception as error:
            raise TrackingError(
                f"the artifact store {describe_address(uri)} cannot be used: {_explain(error, uri)}; "
                f"check {_ARTIFACTS}, MLFLOW_S3_ENDPOINT_URL and the keys"
            ) from error


def _try_artifacts(uri: str, probe: Path) -> str | None:
    """Store a file, read and delete it; see `check_artifacts`."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if not urllib.parse.urlsplit(uri).scheme:
        Path(uri).mkdir(parents=True, exist_ok=True)
    repository = get_artifact_repository(uri)
    try:
        repository.log_artifact(str(probe))
        repository.download_artifacts(_PROBE, str(probe.parent))
        repository.delete_artifacts(_PROBE)
    except Exception as error:
        if not _is_full(error) and _code(error) not in _FAILING:
            raise
        repository.list_artifacts()  # raises where what is there cannot be read either
        with suppress(Exception):  # a disk that is full holds the beginning of the file
            repository.delete_artifacts(_PROBE)
        return (
            f"nothing can be stored in the artifact store {describe_address(uri)}: {_explain(error, uri)}; "
            "what it has can be read and deleted, new files and models are refused until there is room"
        )
    return None


def _code(error: Exception) -> str:
    """Return the name that an object store has for an error; boto3 wraps the error that holds it."""
    found = re.search(r"error occurred \((\w+)\)", str(error))
    return found[1] if found else ""


def _is_full(error: Exception) -> bool:
    is_said = re.search("Full|Quota|NoSpace|InsufficientStorage|^507$", _code(error)) is not None
    return is_said or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


def _explain(error: Exception, uri: str) -> str:
    """Return what the artifact store at an address said, with what it means where that has a name."""
    code, said = _code(error), one_line(error, address=uri)
    if code in ("NoSuchBucket", "404"):
        return f"there is no such bucket ({said})"
    if _is_full(error):
        return f"it is full ({said})"
    if code in _FAILING:
        return f"it fails, as some do whose disk is full ({said})"
    return said


def make_bucket(uri: str) -> None:
    """Create the bucket of an `s3://` address where there is none.

    Raises:
        TrackingError: If it cannot be created.
    """
    import boto3

    bucket = re.split("[/?#]", describe_address(uri).partition("://")[2], maxsplit=1)[0]
    client = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
    try:
        if bucket not in [known["Name"] for known in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=bucket)
    except Exception as error:
        said = one_line(error, address=uri)
        raise TrackingError(f"the bucket {bucket} cannot be created: {said}") from error


def upgrade(uri: str) -> None:
    """Bring a database to this MLflow's schema; whoever calls has a backup of it.

    Raises:
        TrackingError: If MLflow cannot.
    """
    from mlflow.db import upgrade as command

    try:
        other = find_other_schema(uri)
        if other is not None and other.is_newer:
            raise TrackingError(other.advise(_UPGRADE, _STORE))
        command.callback(uri)  # type: ignore[misc]
        if os.environ.get(_LOGINS):
            _prepare_logins()
    except Exception as error:
        said = one_line(error, address=uri)
        raise TrackingError(f"the database {describe_address(uri)} cannot be upgraded: {said}") from error


def _prepare_logins() -> None:
    """Create the tables of users and the administrator, once, before any worker would try to.

    Raises:
        ConfigurationError: If there is no administrator yet and no password for one.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth import bootstrap_admin_user

    try:
        bootstrap_admin_user()
    except MlflowException as error:
        if os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD"):
            raise ConfigurationError(f"MLflow refuses the administrator: {one_line(error)}") from error
        raise ConfigurationError(
            "MLFLOW_AUTH_ADMIN_PASSWORD: expected the administrator's password at the first start with "
            "logins, got nothing; try openssl rand -hex 24"
        ) from error


def _warn(text: str | None) -> None:
    if text is not None:
        print(f"warning: {text}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the environment describes; return the exit status."""
    parser = argparse.ArgumentParser(prog="dirprune.server.preflight", description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="upgrade the database instead")
    parser.add_argument("--make-bucket", action="store_true", help="create the bucket instead")
    given = parser.parse_args(arguments)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    store, artifacts = os.environ[_STORE], os.environ[_ARTIFACTS]
    steps: list[Callable[[], None]] = [
        lambda: check_secrets(os.environ),
        lambda: check_store(store),
        lambda: _warn(check_artifacts(artifacts)),
    ]
    if host := os.environ.get("MLFLOW_HOST"):
        steps.insert(0, lambda: check_port(host, int(os.environ["MLFLOW_PORT"])))
    if os.environ.get(_LOGINS):
        steps.append(_prepare_logins)
    if given.upgrade:
        steps = [lambda: upgrade(store)]
    elif given.make_bucket:
        steps = [lambda: make_bucket(artifacts)]
    try:
        for step in steps:
            step()
    except DirpruneError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return MISTAKE
    return 0


if __name__ == "__main__":
    sys.exit(main())
