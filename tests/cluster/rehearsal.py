"""A study on machines of one's own, as cluster/onprem.yaml sets them up: one is lost, one comes later.

    sudo .venv/bin/python -m tests.cluster.rehearsal [--data DIR]

makes a laptop, a head and two workers out of namespaces of this machine (see `machines`), runs `ray up` and
`ray submit` on the laptop, cuts a worker's power and switches the other one on, and prints what came of it.
It needs some six minutes on two cores. What did not come to be is said, with the last lines of the study.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dirprune.records.events import read_events
from dirprune.records.folder import StudyFolder
from tests.cluster.machines import ROOT, Machine, find_missing, make_machines

LAPTOP, HEAD = "laptop", "head"
CLUSTER_FILE = "cluster/onprem.yaml"
PATIENCE_S = 300.0


class Rehearsal:
    """A laptop and the machines that it makes a cluster of.

    Args:
        machines: The laptop, the head and the workers, by name.
        folder: What all of them see at the same place, as a network file system would give it.
        study: Which of `studies/`.
    """

    def __init__(self, machines: dict[str, Machine], folder: Path, study: str = "lenet") -> None:
        self.machines = machines
        self.laptop, self.head = machines[LAPTOP], machines[HEAD]
        self.workers = [machine for name, machine in machines.items() if name not in (LAPTOP, HEAD)]
        self.shared = folder / "shared"
        self.script = f"studies/{study}.py"
        self.folder = StudyFolder(self.shared / study)
        self.log = folder / "submit.log"
        self.submitted: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Put the project on the laptop, fill in the marked places and make the token."""
        project = self.laptop.home / "dirprune"
        listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines():
            if (ROOT / name).is_file() and not name.startswith("benchmarks/"):
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, project / name)
        own = self.laptop.home / ".ssh"
        own.mkdir(mode=0o700)
        shutil.copy(self.laptop.home.parent / "key", own / "id_ed25519")
        addresses = ", ".join(worker.address for worker in self.workers)
        for name, places in {
            CLUSTER_FILE: {
                "head_ip: EDIT-ME": f"head_ip: {self.head.address}",
                "worker_ips: [EDIT-ME]": f"worker_ips: [{addresses}]",
                "max_workers: 2": f"max_workers: {len(self.workers)}",
                "min_workers: 2": f"min_workers: {len(self.workers)}",
                "ssh_user: EDIT-ME": "ssh_user: root",
                "ssh_private_key: EDIT-ME": "ssh_private_key: ~/.ssh/id_ed25519",
            },
            "cluster/environment.sh": {
                "DIRPRUNE_OUTPUT=EDIT-ME": f"DIRPRUNE_OUTPUT={self.shared}",
                "MLFLOW_TRACKING_URI=EDIT-ME": f"MLFLOW_TRACKING_URI=sqlite:///{self.shared}/mlflow.db",
            },
        }.items():
            text = (project / name).read_text(encoding="utf-8")
            for place, edited in places.items():
                assert place in text, f"{name} has no {place}"
                text = text.replace(place, edited)
            (project / name).write_text(text, encoding="utf-8")
        self.shared.mkdir()
        self.laptop.switch_on(has_sshd=False)
        self.laptop.run("python", "cluster/check.py", CLUSTER_FILE)
        self.laptop.run("ray", "get-auth-token", "--generate")

    def up(self) -> str:
        """Let the laptop make the cluster of the machines that are on, and return what Ray says."""
        said = self.laptop.run("ray", "up", "--yes", "--no-config-cache", CLUSTER_FILE, timeout=300)
        on = [machine for machine in [self.head, *self.workers] if machine.is_on]
        self.wait("Ray on the machines that are on", lambda: all(map(self.has_ray, on)))
        self.wait("the nodes", lambda: {machine.address for machine in on} <= self.nodes(), pause_s=1.0)
        return said

    def has_ray(self, machine: Machine) -> bool:
        """Whether Ray runs on a machine; costs nothing to ask, unlike `nodes`."""
        return "raylet" in machine.run("pgrep -l raylet || true")

    def nodes(self) -> set[str]:
        """Return the addresses of the cluster's living nodes."""
        code = "import ray; ray.init(address='auto', logging_level='ERROR', log_to_driver=False); "
        code += "print('alive:', *[n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']])"
        said = self.head.run("source", "cluster/environment.sh", "&&", "python", "-c", f'"{code}"')
        return set(said.rpartition("alive:")[2].split())

    def run_submitted(self, *arguments: str) -> str:
        """Let the laptop submit the study, and return what comes back when it has ended."""
        return self.laptop.run("ray", "submit", CLUSTER_FILE, self.script, "--", *arguments, timeout=300)

    def submit(self, *arguments: str) -> None:
        """Let the laptop submit the study, and go on while it runs."""
        command = f"cd ~/dirprune && exec ray submit {CLUSTER_FILE} {self.script} -- {' '.join(arguments)}"
        with self.log.open("ab") as log:
            self.submitted = subprocess.Popen(
                self.laptop.command("bash", "-c", command), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def wait(self, what: str, is_so: Callable[[], bool], pause_s: float = 0.5) -> None:
        """Return when something is so; the submitted study must not have failed until then.

        Raises:
            RuntimeError: With what the study printed, if it does not come to be.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            failed = self.submitted is not None and self.submitted.poll() not in (None, 0)
            if failed or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""
                raise RuntimeError(f"waited for {what}:\n{said}")
            time.sleep(pause_s)

    def starts(self) -> list[dict[str, Any]]:
        """Return where and from what each attempt at a trial has started."""
        files = sorted(self.folder.events_dir.glob("*.jsonl"))
        return [event for file in files for event in read_events(file) if event["event"] == "started"]

    def describe_places(self) -> str:
        """Return how many attempts at trials have started on each machine."""
        n_started = Counter(start["machine"] for start in self.starts())
        return ", ".join(f"{name} {number}" for name, number in sorted(n_started.items()))

    def is_at_work(self, machine: Machine) -> bool:
        """Whether an attempt at a trial has started on a machine."""
        return any(start["machine"] == machine.name for start in self.starts())

    def cut_driver(self) -> None:
        """Kill the driver of the study, on the head, and wait until the laptop notices."""
        assert self.submitted is not None
        self.head.run(f"kill -9 $(pgrep -f '[p]ython .*{self.folder.root.name}.py')")
        self.submitted.wait(PATIENCE_S)

    def bring_home(self) -> StudyFolder:
        """Let the laptop bring the study home as README says, and return the folder that it has then."""
        told = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
        (command,) = [line.strip() for line in told.splitlines() if "ray rsync-down" in line]
        own = self.folder.root.name
        for place, here in {
            "/shared/dirprune/resnet56/": f"{self.folder.root}/",
            "output/resnet56/": f"output/{own}/",
        }.items():
            assert place in command, f"README has no {place}"
            command = command.replace(place, here)
        self.laptop.run(command)
        return StudyFolder(self.laptop.home / "dirprune" / "output" / own)

    def end(self) -> int:
        """Wait for the submitted study and return its exit status."""
        assert self.submitted is not None
        return self.submitted.wait(PATIENCE_S)


@contextmanager
def rehearse(folder: Path, n_workers: int = 2, study: str = "lenet") -> Iterator[Rehearsal]:
    """Yield a prepared laptop and machines that are on, but for the last worker; end them all."""
    names = [LAPTOP, HEAD, *(f"worker{place}" for place in range(1, n_workers + 1))]
    with make_machines(folder, names) as machines:
        rehearsal = Rehearsal(machines, folder, study)
        rehearsal.prepare()
        for machine in [rehearsal.head, *rehearsal.workers[:-1]]:
            machine.switch_on()
        try:
            yield rehearsal
        finally:
            if rehearsal.submitted is not None and rehearsal.submitted.poll() is None:
                rehearsal.submitted.kill()
                rehearsal.submitted.wait()


def lose_and_gain(rehearsal: Rehearsal, *arguments: str) -> None:
    """Run a study on head and first worker; in mid-study the worker loses power and the second one comes."""
    first, second = rehearsal.workers
    rehearsal.submit(*arguments)
    rehearsal.wait("a trial on the first worker", lambda: rehearsal.is_at_work(first))
    first.switch_off()
    second.switch_on()
    rehearsal.wait("a trial on the second worker", lambda: rehearsal.is_at_work(second))


def main() -> int:
    """Rehearse and print what the study prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of MNIST; default: the embedded digits")
    parser.add_argument("--trials", type=int, default=80)
    given = parser.parse_args()
    if missing := find_missing():
        print(f"error: {missing}; try apt-get install openssh-server rsync iproute2", file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory(prefix="dirprune-machines-") as scratch,
        rehearse(Path(scratch)) as rehearsal,
    ):
        data = ["--data", given.data] if given.data else []
        try:
            rehearsal.up()
            lose_and_gain(rehearsal, "--trials", str(given.trials), *data)
            status = rehearsal.end()
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(rehearsal.log.read_text(encoding="utf-8", errors="replace"))
        print("trials began on:", rehearsal.describe_places())
        return status


if __name__ == "__main__":
    raise SystemExit(main())
