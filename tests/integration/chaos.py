"""Someone who kills what a study stands on: workers, nodes, driver, MLflow, databases and the store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.tuning import storage
from tests.deployment.services import Postgres
from tests.object_store import ObjectStore
from tests.tracking.mlflow_process import MlflowServer

SCRIPT = Path(__file__).with_name("digits_study.py")
AWAY_S = 6.0
GRACE_S = 30.0
END_S = 400
HEALTH_CHECKS = {
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


class Chaos:
    """A study on a cluster of nodes with one slot each, and its killer.

    Args:
        output: Folder of the study.
        server: The running MLflow server; None: the study is not tracked.
        database: The one behind the server; None: nobody can stop it.
        store: What the machines share; None: the output folder.
        trials: The database that holds the trials; None: a journal in the output folder does.
        seed: Decides what is killed when.
        n_nodes: Nodes beside the head, which runs no trials.
        seconds: How long each evaluation takes.
    """

    def __init__(
        self,
        output: Path,
        server: MlflowServer | None,
        seed: int,
        n_nodes: int = 2,
        seconds: float = 0.3,
        database: Postgres | None = None,
        store: ObjectStore | None = None,
        trials: Postgres | None = None,
    ) -> None:
        from tests.small_cluster import SmallCluster

        output.mkdir()
        self.output, self.server, self.database, self.store = output, server, database, store
        self.trials = trials
        others = {"server": server, "database": database, "store": store, "trials": trials}
        self.deck = ["worker", "worker", "node", "driver"]
        self.deck += [name for name, part in others.items() if part is not None]
        self.folder = StudyFolder(output / "digits")
        self.seconds = seconds
        self.rng = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.returning: dict[str, threading.Timer] = {}
        self.log = output / "driver.log"
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH_CHECKS}
        self.cluster = SmallCluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(n_nodes)]
        self.driver = self.start_driver()

    def start_driver(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the study or continue it."""
        command = [sys.executable, str(SCRIPT), "--output", str(self.output), "--resume"]
        command += ["--halving", "promoting"]
        command += ["--ray-address", self.cluster.address, *arguments]
        command += ["--tracking-uri", self.server.uri] if self.server else ["--no-tracking"]
        command += ["--storage", self.store.uri] if self.store else []
        command += ["--optuna-storage", self.trials.uri] if self.trials else []
        self.n_logged = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, "DIGITS_SECONDS": str(self.seconds), "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def close(self) -> None:
        """End everything that was started here."""
        self.bring_back()
        if self.driver.poll() is None:
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait()
        self.cluster.shutdown()

    def run(self, seconds: float) -> None:
        """Let the study come under way, kill for so long (all at least once), and let it end in order."""
        self.wait_for_ended(2)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for victim in self.rng.sample(self.deck, len(self.deck)):
                time.sleep(self.rng.uniform(1.5, 6.0))
                self.check_driver()
                self.done[victim] += getattr(self, f"kill_{victim}")()
        self.kill_driver(restart=False)
        self.bring_back()
        n_started = len(self.read_records())
        self.driver = self.start_driver("--trials", str(n_started + 2))
        assert self.driver.wait(END_S) == 0, self.read_log()

    def wait_for_ended(self, n_trials: int) -> None:
        """Return when so many trials have ended."""
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            self.check_driver()
            if self.folder.study_json.exists():
                states = [record.state for record in self.read_records()]
                if sum(state != "RUNNING" for state in states) >= n_trials:
                    return
            time.sleep(0.3)
        raise TimeoutError(self.read_log())

    def read_records(self) -> list[TrialRecord]:
        """Return every trial that was started."""
        return storage.read_records(self.folder, self.trials.uri if self.trials else "")

    def check_driver(self) -> None:
        """Raise if the driver ended although nobody killed it."""
        if self.driver.poll() is not None:
            raise AssertionError(f"the driver left with {self.driver.returncode}: {self.read_log()}")

    def read_log(self) -> str:
        """Return the end of what the drivers said."""
        return self.log.read_text(errors="replace")[-4000:]

    def kill_worker(self) -> int:
        """Kill a process that runs trials, as soon as there is one; another one, if it leaves by itself."""
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            raylets = [psutil.Process(find_raylet(node)) for node in self.nodes]
            workers = [p for raylet in raylets for p in raylet.children(recursive=True) if is_trial_worker(p)]
            if workers:
                try:
                    self.rng.choice(sorted(workers, key=lambda process: process.pid)).kill()
                except psutil.NoSuchProcess:
                    continue
                return 1
            time.sleep(0.1)
        raise TimeoutError("no process runs trials")

    def kill_driver(self, restart: bool = True) -> int:
        """Kill the driver and, if asked to, start the next one."""
        os.kill(self.driver.pid, signal.SIGKILL)
        self.driver.wait()
        if restart:
            self.bring_back()  # a study does not begin without server and storage
            self.driver = self.start_driver()
            self.wait_until_at_work()
        return 1

    def wait_until_at_work(self) -> None:
        """Return when the new driver has a trial under way: not only beginnings are to be killed.

        It has opened its study when it names its sampler; workers of the one before are gone by then.
        """
        deadline = time.monotonic() + END_S
        opened = float("inf")
        while time.monotonic() < deadline:
            self.check_driver()
            if opened == float("inf") and b"\nsampler " in self.log.read_bytes()[self.n_logged :]:
                opened = time.time()
            if any(path.stat().st_mtime > opened for path in self.folder.events_dir.glob("*.jsonl")):
                return
            time.sleep(0.2)
        raise TimeoutError(self.read_log())

    def kill_node(self) -> int:
        """Kill a node with all its processes and add a fresh one."""
        node = self.nodes.pop(self.rng.randrange(len(self.nodes)))
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))
        return 1

    def end_node(self) -> None:
        """Tell all processes of a node to end at once, as a machine does that is taken back; add a fresh one.

        Those that stay for longer than the machine's grace are killed.
        """
        node = self.nodes.pop(self.rng.randrange(len(self.nodes)))
        raylet = psutil.Process(find_raylet(node))
        processes = [raylet, *raylet.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(processes, timeout=GRACE_S)
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def kill_server(self) -> int:
        """Kill the MLflow server; it comes back a while later, when other things may have been killed."""
        assert self.server is not None
        self.bring_back("server", "database")
        self.server.kill()
        self.let_return("server", self.server.start)
        return 1

    def kill_database(self) -> int:
        """Stop the database behind the server at once; it comes back likewise."""
        assert self.database is not None
        self.bring_back("server", "database")
        self.database.stop()
        self.let_return("database", self.database.start)
        return 1

    def kill_store(self) -> int:
        """Let the object store hang; it comes back likewise."""
        assert self.store is not None
        self.bring_back("store")
        self.store.pause()
        self.let_return("store", self.store.resume)
        return 1

    def kill_trials(self) -> int:
        """Stop the database of the trials at once: the driver leaves in order; the next one goes on."""
        assert self.trials is not None
        self.trials.stop()
        try:
            assert self.driver.wait(END_S) == 2, self.read_log()
        finally:
            self.trials.start()
        said = self.read_log()
        assert said.rstrip().endswith("; when it answers again, the same command with --resume goes on"), said
        self.driver = self.start_driver()
        self.wait_until_at_work()
        return 1

    def let_return(self, what: str, come_back: Callable[[], None]) -> None:
        """Let something come back after a while."""
        self.returning[what] = threading.Timer(AWAY_S, come_back)
        self.returning[what].start()

    def bring_back(self, *what: str) -> None:
        """Return when these answer again; all that are away where none is named."""
        for name in what or tuple(self.returning):
            if name in self.returning:
                self.returning.pop(name).join()


def find_raylet(node: Any) -> int:
    """Return the process id of a node's raylet."""
    return int(node.all_processes["raylet"][0].process.pid)


def is_trial_worker(process: psutil.Process) -> bool:
    """Whether a process is a worker of Ray that has a trial, by the title that Ray gives it."""
    try:
        title = " ".join(process.cmdline())
        return title.startswith("ray::") and not any(name in title for name in ("Agent", "IDLE"))
    except psutil.Error:
        return False


@contextmanager
def open_chaos(output: Path, server: MlflowServer | None, seed: int, **options: Any) -> Iterator[Chaos]:
    """Yield a study that runs; end all that belongs to it."""
    chaos = Chaos(output, server, seed, **options)
    try:
        yield chaos
    finally:
        chaos.close()
