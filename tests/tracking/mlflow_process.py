"""A real MLflow server on localhost for tests; it ends with its whole process group."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER_STORE = "server.db"


def find_free_port() -> int:
    """Return a port of localhost that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class MlflowServer:
    """`mlflow server` with one worker, its store in a SQLite file and its artifacts in a folder.

    Args:
        folder: Where everything lies.
        port: Of localhost.
        store: Another tracking store than the SQLite file.
        app: Name of an `mlflow.app` plugin; one that ends in "auth" has the administrator of `settings`.
        settings: More variables of the environment.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        store: str | None = None,
        app: str | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.port = folder, port
        self.app, self.settings = app, settings or {}
        self.uri = f"http://127.0.0.1:{port}"
        self.store = store or f"sqlite:///{folder / SERVER_STORE}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, patience_s: float = 120.0) -> None:
        """Start it and wait until its API answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self.store]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        command += ["--app-name", self.app] if self.app else []
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        settings |= self.settings
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **settings},
                start_new_session=True,
            )
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            try:
                address = f"{self.uri}/api/2.0/mlflow/experiments/search?max_results=1"
                with urllib.request.urlopen(address, timeout=2):
                    return
            except urllib.error.HTTPError as error:
                if error.code == 401 and self.app and self.app.endswith("auth"):
                    return
                time.sleep(0.3)
            except OSError:
                time.sleep(0.3)
        self.kill()
        raise TimeoutError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        """End it at once, and wait until nobody listens any more."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            while True:
                with socket.socket() as sock:
                    if sock.connect_ex(("127.0.0.1", self.port)):
                        return
                time.sleep(0.1)


@contextmanager
def run_server(
    folder: Path, store: str | None = None, app: str | None = None, settings: dict[str, str] | None = None
) -> Iterator[MlflowServer]:
    """Yield a running server; end it whatever happens."""
    server = MlflowServer(folder, find_free_port(), store, app, settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()
