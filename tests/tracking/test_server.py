"""A tracking server that is not there is told within seconds, in one line."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dirprune.errors import TrackingError
from dirprune.tracking import check_server, default_tracking_uri, ui_command


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """Yield the port of localhost at which a handler answers."""
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def web_server() -> Iterator[str]:
    """Yield the address of a server that knows no page at all."""
    with serving(http.server.BaseHTTPRequestHandler) as port:
        yield f"http://127.0.0.1:{port}"


def complain(uri: str) -> str:
    began = time.monotonic()
    with pytest.raises(TrackingError) as raised:
        check_server(uri)
    assert time.monotonic() - began < 20
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_server_that_is_not_there_is_told_with_the_way_out() -> None:
    message = complain(f"http://127.0.0.1:{free_port()}")
    assert "no MLflow server answers at http://127.0.0.1:" in message
    assert "Connection refused" in message
    assert "start it or check --tracking-uri" in message


def test_server_that_hangs_is_given_up_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dirprune.tracking.server.PATIENCE_S", 0.5)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        assert "timed out" in complain(f"http://127.0.0.1:{sock.getsockname()[1]}")


def test_other_web_server_is_not_taken_for_mlflow(web_server: str) -> None:
    assert f"expected an MLflow server at {web_server}, got status 501" in complain(web_server)


class _OldServer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"2.22.1" if self.path == "/version" else b"{}")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_server_of_an_older_generation_is_told_with_the_way_out() -> None:
    with serving(_OldServer) as port:
        message = complain(f"http://127.0.0.1:{port}")
    assert "expected MLflow 3 or newer" in message
    assert "got 2.22.1; upgrade the server" in message


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("http://no-such-host.invalid:5000", "no MLflow server answers"),
        ("http://127.0.0.1:x", "no MLflow server answers"),
        ("sqlite:////proc/none/mlflow.db", "cannot be created"),
        ("sqlite:/relative", "an absolute path has four slashes"),
        ("htp://host", "cannot be used: expected http://HOST:PORT, sqlite:////FILE or"),
        ("localhost:5000", "cannot be used: expected http://HOST:PORT"),
        ("http//localhost:5000", "cannot be used: expected http://HOST:PORT"),
        ("postgres://me:secret@host/db", "store postgres://host/db cannot be used: expected"),
        ("EDIT-ME", "the tracking store EDIT-ME cannot be used: expected"),
        ("./mlruns", "cannot be used: expected http://HOST:PORT"),
    ],
)
def test_address_that_cannot_work_is_one_clear_line(
    uri: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert part in complain(uri)
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database")
    assert "cannot be used" in complain(default_tracking_uri(tmp_path))
    assert (tmp_path / "mlflow.db").read_text() == "not a database"


def test_login_in_an_address_reaches_the_server() -> None:
    seen: list[str | None] = []

    class Handler(_OldServer):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            super().do_GET()

    with serving(Handler) as port:
        message = complain(f"http://me:hunter%212@127.0.0.1:{port}")
    assert "expected MLflow 3 or newer" in message
    assert "hunter" not in message
    assert seen == ["Basic bWU6aHVudGVyITI="] * 2


class _Reader(http.server.BaseHTTPRequestHandler):
    """A server where everything may be read and nothing written."""

    def do_GET(self) -> None:
        experiment = {"experiment_id": "1", "name": "dirprune", "lifecycle_stage": "active"}
        is_named = "get-by-name" in self.path
        body = {"experiment": experiment} if is_named else {"experiments": [experiment]}
        self.answer(200, b"3.17.0" if self.path == "/version" else json.dumps(body).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("experiments/search"):
            self.do_GET()
        else:
            self.answer(403, b"Permission denied")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Stranger(_Reader):
    """A server that knows nobody."""

    def do_GET(self) -> None:
        self.answer(401, b"You are not authenticated.")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


@pytest.mark.parametrize(
    ("handler", "part"),
    [
        (_Reader, "may be read by this login and not written; ask its owner for the permission EDIT"),
        (_Stranger, "give them in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_login_that_is_none_or_may_not_write_is_told_with_the_way_out(
    handler: type[http.server.BaseHTTPRequestHandler], part: str
) -> None:
    with serving(handler) as port:
        message = complain(f"http://127.0.0.1:{port}")
    assert part in message
    assert "Response body" not in message


def test_secret_in_an_address_is_not_shown() -> None:
    assert "hunter2" not in complain(f"http://me:hunter2@127.0.0.1:{free_port()}")


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a Python of its own in `.venv`, as after `make study`; return that Python."""
    found = tmp_path / ".venv" / "bin" / "python"
    found.parent.mkdir(parents=True)
    monkeypatch.setattr("sys.executable", str(found))
    monkeypatch.chdir(tmp_path)
    return found


def test_ui_command_runs_the_mlflow_beside_this_python(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = default_tracking_uri(Path("output"))
    assert ui_command(here) == "mlflow ui --backend-store-uri sqlite:///output/mlflow.db"
    python.with_name("mlflow").touch()
    assert ui_command(here) == ".venv/bin/mlflow ui --backend-store-uri sqlite:///output/mlflow.db"
    (tmp_path / "other place").mkdir()
    monkeypatch.chdir("other place")
    program = python.with_name("mlflow")
    assert ui_command(here) == f"{program} ui --backend-store-uri sqlite:///{tmp_path}/output/mlflow.db"


@pytest.mark.usefixtures("python")
def test_ui_command_names_the_store() -> None:
    assert (
        ui_command("sqlite:////a b/mlflow.db") == "mlflow ui --backend-store-uri 'sqlite:////a b/mlflow.db'"
    )
    assert ui_command("sqlite:///mine.db") == "mlflow ui --backend-store-uri sqlite:///mine.db"
    assert ui_command("sqlite:////a/m.db?x=1") == "mlflow ui --backend-store-uri 'sqlite:////a/m.db?x=1'"
    assert ui_command("postgresql://h/db") == "mlflow ui --backend-store-uri postgresql://h/db"
    assert ui_command("https://server") == "https://server"


def test_readme_of_the_server_has_the_command_that_a_study_prints(python: Path) -> None:
    python.with_name("mlflow").touch()
    readme = Path(__file__).parents[2] / "mlflow" / "README.md"
    assert f"\n{ui_command(default_tracking_uri(Path('output')))}\n" in readme.read_text(encoding="utf-8")
