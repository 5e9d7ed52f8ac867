"""Machines of one's own: network, process and mount namespaces with an ssh server in each; Linux, as root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare", "nsenter")
PATIENCE_S = 20.0


def find_missing() -> str:
    """Return what keeps machines from being made here; empty if nothing does."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces need Linux and root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    return f"no {', '.join(missing)} here" if missing else ""


@dataclass
class Machine:
    """One machine.

    Attributes:
        name: Its name.
        address: Its address, which only the other machines of the network reach.
        home: The home folder that its root has.
        namespace: Of its network.
    """

    name: str
    address: str
    home: Path
    namespace: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def is_on(self) -> bool:
        """Whether it is switched on."""
        return self.process is not None

    def switch_on(self, has_sshd: bool = True) -> None:
        """Start it and wait until it can be reached."""
        up = self.home / ".machine" / "up"
        up.unlink(missing_ok=True)
        Path("/tmp/ray").mkdir(exist_ok=True)  # where each machine has a folder of its own
        script = [str(Path(__file__).with_name("machine.sh")), str(self.home), self.address, self.name]
        unshare = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.home / ".machine" / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *unshare, "bash", *script, *["sshd"][:has_sshd]],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not up.exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError((self.home / ".machine" / "log").read_text()[-2000:])
            time.sleep(0.05)

    def switch_off(self) -> None:
        """End it as a power cut would: every process at once."""
        if self.process is not None:
            for child in self._first_process():
                os.kill(child, signal.SIGKILL)  # the kernel ends the others of its namespace
            self.process.kill()
            self.process.wait()
            self.process = None

    def command(self, *words: str) -> list[str]:
        """Return what runs a command on it, in its home, with nothing of this process's environment."""
        (first,) = self._first_process()
        home = f"HOME={self.home}"
        path = f"PATH={self.home}/dirprune/.venv/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        enter = ["nsenter", "--target", str(first), "--mount", "--uts", "--ipc", "--net", "--pid"]
        return [*enter, "env", "-i", home, path, "TERM=dumb", "OMP_NUM_THREADS=1", *words]

    def run(self, *words: str, timeout: float = 120.0) -> str:
        """Run a command on it in its project's folder and return what it prints, both streams together.

        Raises:
            RuntimeError: With all that it printed, if it fails.
        """
        done = subprocess.run(
            self.command("bash", "-c", f"cd ~/dirprune && {' '.join(words)}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(words)} on {self.name} left with {done.returncode}:\n{done.stdout}"
            )
        return done.stdout

    def _first_process(self) -> list[int]:
        assert self.process is not None, f"{self.name} is switched off"
        pid = self.process.pid  # `ip netns exec` becomes `unshare`, whose one child is the machine's first
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return [int(child) for child in children.read_text().split()] if children.exists() else []


@contextmanager
def make_machines(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Machine]]:
    """Yield machines on one network, switched off; whatever happens, nothing of them is left.

    The network is a bridge in a namespace of its own: this machine has no address in it.

    Args:
        folder: Where their homes come to lie.
        names: Theirs.
    """
    prefix = f"dirprune-{uuid.uuid4().hex[:6]}"
    switch = f"{prefix}-switch"
    machines: dict[str, Machine] = {}
    namespaces: list[str] = []

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    try:
        ip("netns", "add", switch)
        namespaces.append(switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        _make_keys(folder)
        for place, name in enumerate(names):
            namespace, address = f"{prefix}-{name}", f"10.99.4.{10 + place}"
            ip("netns", "add", namespace)
            namespaces.append(namespace)
            port = f"port{place}"
            ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
            ip("-n", namespace, "route", "add", "default", "dev", "eth0")
            machines[name] = Machine(name, address, _make_home(folder, name), namespace)
        yield machines
    finally:
        for machine in machines.values():
            machine.switch_off()
        for namespace in namespaces:
            ip("netns", "delete", namespace)


def _make_keys(folder: Path) -> None:
    for name in ("key", "host_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)


def _make_home(folder: Path, name: str) -> Path:
    """Make the home folder of a machine's root, with this environment's packages, but not this checkout."""
    home = folder / name
    own = home / ".machine"
    own.mkdir(parents=True)
    lines = Path("/etc/passwd").read_text(encoding="utf-8").splitlines()
    users = [line for line in lines if not line.startswith("root:")]
    (own / "passwd").write_text(
        "\n".join([f"root:x:0:0:root:{home}:/bin/bash", *users, ""]), encoding="utf-8"
    )
    shutil.copy(folder / "key.pub", own / "authorized_keys")
    shutil.copy(folder / "host_key", own / "host_key")
    make_environment(home / "dirprune")
    return home


def make_environment(project: Path) -> None:
    """Make a project folder's `.venv` as `make install` would, with the packages that are installed here.

    Only `dirprune` is the folder's own. So `make install` finds nothing left to do, and no index is asked.
    """
    environment = project / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    packages = sysconfig.get_path("purelib")
    paths = {"base": str(environment), "platbase": str(environment)}
    target = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (target / "packages.pth").write_text(f"{project}\n{packages}\n", encoding="utf-8")
    ray = environment / "bin" / "ray"
    ray.write_text(
        f"#!{environment}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n", encoding="utf-8"
    )
    ray.chmod(0o755)
    installed = environment / ".installed"
    installed.touch()


def pretend_version(project: Path, package: str, number: str) -> None:
    """Let a project's `.venv` say that it has another version of a package."""
    (site,) = (project / ".venv" / "lib").glob("python3*/site-packages")
    described = site / f"{package}-{number}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {number}\n")
