"""Whether there is an MLflow to write to, found out within seconds."""

from __future__ import annotations

import os
import shlex
import sqlite3
import sys
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dirprune.addresses import describe_address, mask_secrets
from dirprune.errors import TrackingError, one_line
from dirprune.server.schema import find_other_schema
from dirprune.tracking import names

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_STORE = "mlflow.db"
PATIENCE_S = 5.0
OLDEST_SERVER = 3  # the first major version that has logged models
DATABASES = ("postgresql", "mysql", "mssql")
KINDS = ("http", "https", "sqlite", *DATABASES, "databricks", "databricks-uc", "uc")
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the tracker tries again itself; 7 block for four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def default_tracking_uri(output: Path) -> str:
    """Return the address of the store in a file beside the studies, `<output>/mlflow.db`."""
    return f"sqlite:///{output.resolve() / DEFAULT_STORE}"


def is_remote(tracking_uri: str) -> bool:
    """Whether a server stands between us and the store, which then also decides where artifacts lie."""
    return _scheme(tracking_uri) in ("http", "https", "databricks")


def _scheme(tracking_uri: str) -> str:
    """Return the kind of a store; `urlsplit` would refuse some passwords."""
    return tracking_uri.partition(":")[0].lower()


def ui_command(tracking_uri: str) -> str:
    """Return the command, to be run in the current folder, or the address that shows a store's studies."""
    if is_remote(tracking_uri):
        return describe_address(tracking_uri)
    scheme = "sqlite:///"
    path, mark, query = tracking_uri.removeprefix(scheme).partition("?")
    if tracking_uri.startswith(scheme) and Path(path).is_absolute():
        tracking_uri = f"{scheme}{_from_here(Path(path))}{mark}{query}"
    return f"{_mlflow()} ui --backend-store-uri {shlex.quote(mask_secrets(tracking_uri))}"


def _mlflow() -> str:
    """Return the program that belongs to this interpreter: one in a `.venv` is not on the PATH."""
    beside = Path(sys.executable).with_name("mlflow")
    return shlex.quote(str(_from_here(beside))) if beside.exists() else "mlflow"


def _from_here(path: Path) -> Path:
    """Return a path below the current folder as people there write it, any other as it is."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def check_server(tracking_uri: str) -> None:
    """Return when the tracking URI can be used.

    For this process, MLflow's patience with a server that is away is set to seconds and its telemetry is off,
    unless the environment says otherwise.

    Raises:
        TrackingError: If nothing answers there, it refuses us, or the store cannot be opened.
    """
    prepare_environment_()
    scheme = _scheme(tracking_uri)
    kind = scheme.partition("+")[0]
    if kind not in KINDS and tracking_uri not in KINDS:
        raise TrackingError(
            f"the tracking store {describe_address(tracking_uri)} cannot be used: expected http://HOST:PORT, "
            "sqlite:////FILE or postgresql://...; check --tracking-uri"
        )
    if scheme in ("http", "https"):
        _probe(tracking_uri)
        _check_version(tracking_uri)
    elif kind == "sqlite" and _prepare_file(tracking_uri):
        return
    with _told_in_one_line(tracking_uri):
        client = open_client(tracking_uri)
        client.search_experiments(max_results=1)
        if scheme in ("http", "https"):
            _check_rights(client, tracking_uri)


def _check_rights(client: MlflowClient, tracking_uri: str) -> None:
    """Raise if our login may read the studies of a server and not write any: no trial can be told there."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    if experiment is None or experiment.lifecycle_stage != "active":
        return
    try:
        for name, text in names.EXPERIMENT_TAGS.items():  # what it has had since it was made
            client.set_experiment_tag(experiment.experiment_id, name, text)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        raise TrackingError(
            f"the experiment {names.EXPERIMENT} at {describe_address(tracking_uri)} may be read by this "
            "login and not written; ask its owner for the permission EDIT"
        ) from error


def check_default_store(output: Path, study_id: str | None = None) -> None:
    """Return when the store beside the studies can be opened, or is not needed.

    Args:
        output: Folder of all studies.
        study_id: The study that is asked for; None for one that has yet to begin.

    Raises:
        TrackingError: If it cannot, or another MLflow made it.
    """
    uri = default_tracking_uri(output)
    if is_in_default_store(output, study_id):
        with _told_in_one_line(uri):
            _refuse_other_schema(uri)


def is_in_default_store(output: Path, study_id: str | None = None) -> bool:
    """Whether the store beside the studies is there and has, or may have, runs of a study.

    Its file is read without MLflow, which opens no store of another version.

    Args:
        output: Folder of all studies.
        study_id: The study's own id; None: of any.
    """
    path = (output / DEFAULT_STORE).resolve()
    if study_id is None or not path.exists():
        return path.exists()
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
            tagged = store.execute(
                "SELECT 1 FROM tags WHERE key = ? AND value = ?", (names.STUDY_ID, study_id)
            )
            return tagged.fetchone() is not None
    except sqlite3.DatabaseError as error:  # of one that is locked or damaged nothing is known
        return "not a database" not in str(error)


def open_client(tracking_uri: str) -> MlflowClient:
    """Return MLflow's client of a store.

    Raises:
        TrackingError: If it is a database that another MLflow made, which is left as it is.
        Exception: Whatever MLflow and a database's drivers raise if it cannot be opened.
    """
    prepare_environment_()
    from mlflow import MlflowClient

    # Before MLflow opens it: MLflow would try for 102 s where nothing answers, and upgrade an older one.
    if _scheme(tracking_uri).partition("+")[0] in ("sqlite", *DATABASES):
        _refuse_other_schema(tracking_uri)
    return MlflowClient(tracking_uri)


def _refuse_other_schema(tracking_uri: str) -> None:
    other = find_other_schema(tracking_uri)
    if other is not None:
        upgrade = f"{_mlflow()} db upgrade {shlex.quote(mask_secrets(tracking_uri))}"
        raise TrackingError(
            f"the tracking store {describe_address(tracking_uri)} cannot be used: "
            f"{other.advise(upgrade, '--tracking-uri')}"
        )


@contextmanager
def _told_in_one_line(tracking_uri: str) -> Iterator[None]:
    """Turn what stores raise, and their databases and sockets, into one line that names the store."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        said, advice = one_line(error, address=tracking_uri), "check --tracking-uri"
        if getattr(error, "error_code", None) == "UNAUTHENTICATED":
            said = "it knows no such user and password"
            advice = "give them in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        raise TrackingError(
            f"the tracking store {describe_address(tracking_uri)} cannot be used: {said}; {advice}"
        ) from error


def prepare_environment_() -> None:
    """Set what MLflow reads from the environment, where the user has not."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _probe(tracking_uri: str) -> None:
    """Raise unless an MLflow server answers within `PATIENCE_S`."""
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    shown = describe_address(tracking_uri)
    advice = "start it or check --tracking-uri"
    try:
        if urllib.parse.urlsplit(tracking_uri).port == 0:  # a port that is no number raises ValueError
            raise ValueError("port 0")
        with urllib.request.urlopen(_request(tracking_uri, path), timeout=PATIENCE_S):
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):  # the client, which has the user's login, decides
            return
        raise TrackingError(
            f"expected an MLflow server at {shown}, got status {error.code} from its API; {advice}"
        ) from error
    except (OSError, ValueError) as error:
        said = one_line(getattr(error, "reason", error), address=tracking_uri)
        raise TrackingError(f"no MLflow server answers at {shown} ({said}); {advice}") from error


def _request(tracking_uri: str, path: str) -> urllib.request.Request:
    """Return a request with the login of an address in its header: urllib takes it for a part of the host."""
    parts = urllib.parse.urlsplit(tracking_uri)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl().rstrip("/") + path)
    if login:
        plain = urllib.parse.unquote(login).encode()
        request.add_header("Authorization", f"Basic {b64encode(plain).decode()}")
    return request


def _check_version(tracking_uri: str) -> None:
    """Raise if a server says that it is too old; one that keeps its version to itself may be right."""
    try:
        request = _request(tracking_uri, "/version")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            version = answer.read(40).decode(errors="replace").strip()
    except (OSError, ValueError):
        return
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < OLDEST_SERVER:
        raise TrackingError(
            f"expected MLflow {OLDEST_SERVER} or newer at {describe_address(tracking_uri)}, got {version}; "
            "upgrade the server (and its database with mlflow db upgrade)"
        )


def _prepare_file(tracking_uri: str) -> bool:
    """Create the folder of a SQLite store; return whether the file is new, with nothing to open yet."""
    _, slashes, path_and_options = tracking_uri.partition(":///")
    path = Path(path_and_options.partition("?")[0])
    shown = describe_address(tracking_uri)
    if not slashes or not path.name:
        raise TrackingError(f"expected sqlite:///FILE, got {shown!r}; an absolute path has four slashes")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(
            f"the folder of {shown} cannot be created: {error.strerror}; check --tracking-uri"
        ) from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise TrackingError(f"{shown} cannot be written; check --tracking-uri or its permissions")
    return not path.exists()
