"""Real services on localhost for tests: a private PostgreSQL, and an S3-compatible store (moto's server)."""

from __future__ import annotations

import http.client
import http.server
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.object_store import run_store
from tests.tracking.mlflow_process import find_free_port

USER = "keeper"
POSTGRES_PASSWORD = "a-database-password-of-tests"
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "a-secret-key-of-tests"}


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs; Debian keeps most of them off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if folders:
        return folders[-1]
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Postgres:
    """A PostgreSQL cluster of its own that listens on localhost only and asks for a password.

    It refuses to run as root; tests of root run it as `nobody`.

    Args:
        folder: A new folder; it becomes the database user's.
    """

    def __init__(self, folder: Path) -> None:
        programs = find_postgres()
        assert programs is not None
        self.programs, self.folder, self.port = programs, folder, find_free_port()
        self.uri = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        self.environment = {"PGPASSWORD": POSTGRES_PASSWORD}

    @property
    def client_environment(self) -> dict[str, str]:
        """This process's environment, in which PostgreSQL's programs are found and know the password."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, **self.environment, "PATH": path}

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs as the cluster's user; return what it prints."""
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
        done = subprocess.run(
            command,
            env=self.client_environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
        return done.stdout

    def create(self) -> None:
        """Make the cluster's files."""
        secret = self.folder / "password"
        secret.write_text(POSTGRES_PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody", "nogroup")
            shutil.chown(secret, "nobody", "nogroup")
        login = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}"]
        self.run("initdb", "-D", str(self.folder / "data"), *login, "-E", "UTF8", "--locale=C", "--no-sync")

    def start(self, addresses: str = "127.0.0.1") -> None:
        """Start it and wait until it takes connections; without an address only those through its socket."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses={addresses} -c fsync=off"
        log = str(self.folder / "log")
        # Its output goes to a file: a pipe would stay open as long as the server runs.
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-s", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """End it at once, as a crash would."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-s", "stop")

    def query(self, text: str) -> str:
        """Return what a query gives, as text."""
        return self.run("psql", self.uri, "--no-align", "--tuples-only", "--command", text)


@contextmanager
def run_postgres(addresses: str = "127.0.0.1") -> Iterator[Postgres]:
    """Yield a running cluster; below the system's own temporary folder, which its user can reach."""
    with tempfile.TemporaryDirectory(prefix="dirprune-postgres-") as folder:
        cluster = Postgres(Path(folder))
        cluster.create()
        cluster.start(addresses)
        try:
            yield cluster
        finally:
            cluster.stop()


@dataclass
class ObjectStore:
    """An S3-compatible store: its address, and the environment that its clients need.

    Attributes:
        endpoint: Its address.
        refusal: What it says to whoever wants to store something, as long as it is full.
    """

    endpoint: str
    refusal: str | None = None

    @contextmanager
    def full(self, code: str) -> Iterator[None]:
        """Let it take nothing more, in the words of some store's full disk; all else goes on."""
        self.refusal = code
        try:
            yield
        finally:
            self.refusal = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which MLflow and boto3 find it."""
        return {"MLFLOW_S3_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": "us-east-1", **KEYS}

    @property
    def client(self) -> Any:
        """A client with the store's keys."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )


def _make_gate(store: ObjectStore, behind: str) -> type[http.server.BaseHTTPRequestHandler]:
    """Return a handler that passes requests on to an address, but for what a full store refuses."""

    class Gate(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # clients wait for "100 Continue"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "PUT" and store.refusal is not None:
                text = f"<Error><Code>{store.refusal}</Code><Message>no room is left</Message></Error>"
                status = {"InternalError": 500, "AccessDenied": 403}.get(store.refusal, 507)
                self._answer(status, {}, text.encode())
                return
            connection = http.client.HTTPConnection(behind, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())
            connection.close()

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815  (http.server's names)

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            if self.command != "HEAD":
                headers = {**headers, "Content-Length": str(len(body))}
            for name, value in headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Gate


@contextmanager
def run_object_store(folder: Path) -> Iterator[ObjectStore]:
    """Yield a running store that has none of the tests' buckets; it forgets everything when it ends."""
    with run_store(folder) as running, http.server.ThreadingHTTPServer(("127.0.0.1", 0), None) as gate:  # type: ignore[arg-type]
        store = ObjectStore(f"http://127.0.0.1:{gate.server_port}")
        gate.RequestHandlerClass = _make_gate(store, running.address.removeprefix("http://"))
        gate.daemon_threads, gate.block_on_close = True, False  # clients keep connections open
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        try:
            yield store
        finally:
            gate.shutdown()
