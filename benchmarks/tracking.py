"""What tracking a study costs: requests, seconds and CPU for each hundred trials, on SQLite and PostgreSQL.

    python benchmarks/tracking.py --output DIR [--trials 1000] [--epochs 30] [--rounds 1] [--postgres URI]

A server of `mlflow/serve.sh` with one worker for each database; the uploader of a study brings it made-up
trials, one after the other, each in `--rounds` visits (1: a trial that is synchronised after the fact or
ends within a second of its start; 30: each epoch by itself, the most that a live study sends), and after
each the study's own run. Requests are counted where they leave; CPU is that of this process and of the
server's, PostgreSQL's own is not counted. The password of `--postgres` comes from PGPASSWORD. Seconds are
wall time.
"""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import psutil
import requests

from dirprune.cli.printing import format_table
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.study.objectives import Objective
from dirprune.study.observer import StudySummary
from dirprune.tracking.uploader import Uploader
from dirprune.tracking.views import view_progress

SCRIPT = Path(__file__).parents[1] / "mlflow" / "serve.sh"
BLOCK = 100
GROUPS = {f"layer{place}": 64 for place in range(20)}
OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("macs", "minimize"))


@dataclass
class Counter:
    """Requests that have left this process."""

    n: int = 0

    def watch(self) -> None:
        """Count from now on."""
        send = requests.adapters.HTTPAdapter.send

        def counting(*arguments, **keywords):
            self.n += 1
            return send(*arguments, **keywords)

        requests.adapters.HTTPAdapter.send = counting


@contextmanager
def serve(database: str | None) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the address and the process of a fresh server."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    environment = {**os.environ, "PYTHON": sys.executable}
    if database is not None:
        environment["MLFLOW_BACKEND_STORE_URI"] = database
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        command = ["bash", str(SCRIPT), "--port", str(port), "--folder", f"{folder}/server"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        uri = f"http://127.0.0.1:{port}"
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1").close()
                    break
                except OSError:
                    if process.poll() is not None:
                        raise SystemExit((Path(folder) / "log").read_text()) from None
                    time.sleep(0.5)
            yield uri, psutil.Process(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measure_cpu(server: psutil.Process) -> float:
    """Return the CPU seconds of the server and its workers so far."""
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def make_trial(number: int, n_epochs: int) -> TrialRecord:
    """Return a finished trial that reported accuracy and loss after each epoch."""
    began = 1.7e9 + 60 * number
    curve = tuple(
        (50_000 * epoch, {"val_accuracy": 0.9 - 1 / (epoch + 2), "val_loss": 1 / (epoch + 1)})
        for epoch in range(1, n_epochs + 1)
    )
    return TrialRecord(
        number=number,
        source="sampler",
        method="taylor",
        options={"lr": 0.01, "weight_decay": 1e-4, "epochs": n_epochs},
        architecture={group: 1 + (number * 7 + place) % 64 for place, group in enumerate(GROUPS)},
        state="COMPLETE",
        curve=curve,
        times=tuple(began + epoch for epoch in range(n_epochs)),
        started_at=began,
        metrics={**curve[-1][1], "test_accuracy": 0.88, "macs": 1e8, "parameters": 1e6, "wall_time_s": 60.0},
    )


def run(
    name: str, database: str | None, n_trials: int, n_epochs: int, n_rounds: int
) -> list[dict[str, object]]:
    """Bring trials to a fresh server; return a row for each block of them."""
    counter, rows = Counter(), []
    with serve(database) as (uri, server), tempfile.TemporaryDirectory() as output:
        folder = StudyFolder(Path(output) / "study")
        folder.root.mkdir()
        costs = {"macs": 3e8, "parameters": 1e7}
        reference = {"val_accuracy": 0.1, "macs": 3e8}
        summary = StudySummary(
            "study", f"{time.time_ns():x}", folder, OBJECTIVES, reference, costs, GROUPS, n_trials, 0
        )
        uploader = Uploader(summary, uri, None)
        uploader.connect()
        counter.watch()
        for first in range(0, n_trials, BLOCK):
            at = time.perf_counter(), time.process_time(), measure_cpu(server), counter.n
            last = min(first + BLOCK, n_trials)
            for number in range(first, last):
                upload(uploader, make_trial(number, n_epochs), n_rounds)
            n = last - first
            now = time.perf_counter(), time.process_time(), measure_cpu(server), counter.n
            spent = [after - before for before, after in zip(at, now, strict=True)]
            seconds, cpu, server_cpu, n_requests = spent
            rows.append(
                {
                    "database": name,
                    "trials": f"{first}-{last - 1}",
                    "requests per trial": f"{n_requests / n:.2f}",
                    "ms per trial": f"{1000 * seconds / n:.0f}",
                    "CPU ms, client": f"{1000 * cpu / n:.1f}",
                    "CPU ms, server": f"{1000 * server_cpu / n:.1f}",
                }
            )
            print(*rows[-1].values(), flush=True)
    return rows


def upload(uploader: Uploader, trial: TrialRecord, n_rounds: int) -> None:
    """Bring one trial to the server in so many visits, and then the study's run."""
    n_epochs = len(trial.curve)
    for visit in range(1, n_rounds):
        n_seen = visit * n_epochs // n_rounds
        seen = replace(trial, state="RUNNING", curve=trial.curve[:n_seen], times=trial.times[:n_seen])
        uploader.upload(trial.number, seen)
    uploader.upload(trial.number, trial)
    points = view_progress(0.5, 10, {"COMPLETE": trial.number + 1}, round(1000 * trial.times[-1]))
    uploader.upload_study(points, (), None)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--trials", type=int, default=1000, show_default=True)
@click.option("--epochs", type=int, default=30, show_default=True)
@click.option("--rounds", type=int, default=1, show_default=True)
@click.option("--postgres", help="An empty database, measured after SQLite.")
def main(output: Path, trials: int, epochs: int, rounds: int, postgres: str | None) -> None:
    """Measure both databases and write `tracking-<rounds>.csv`."""
    rows = run("SQLite", None, trials, epochs, rounds)
    if postgres is not None:
        rows += run("PostgreSQL", postgres, trials, epochs, rounds)
    output.mkdir(parents=True, exist_ok=True)
    with (output / f"tracking-{rounds}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(format_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows]))


if __name__ == "__main__":
    main()
