"""Connecting to Ray: a local one that only this user on this machine can reach, or a running cluster."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import IO

import torch

from dirprune.errors import ConfigurationError, one_line
from dirprune.interruption import keeping_sigterm
from dirprune.tuning.garbage import leave_without_collections
from dirprune.tuning.growth import list_nodes
from dirprune.tuning.last_words import last_words
from dirprune.tuning.small_ray import without_idle_processes

LOCAL = "local"
PATIENCE_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost")

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


_KEEPING_TO_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray binds every port to all interfaces, and takes 127.0.0.1 for an address of the network, unless told that
it is no cluster; it looks for that while it is imported, as for the way of authentication."""
_GONE = (
    "error: the Ray at {address} has ended, or this process was killed; unfinished trials are kept: the same "
    "command with --resume goes on, on a Ray that runs"
)
_ASKING = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
_WITHOUT_SPARE_WORKERS = {"RAY_prestart_worker_first_driver": "0"}
"""Ray starts a process for each CPU before anybody asks; those of trials have another environment."""


@dataclass(frozen=True)
class Resources:
    """What a study may use.

    Attributes:
        address: "local", "auto" or a Ray address.
        cpus_per_trial: CPU cores of one trial; fractions let trials share a core.
        gpus_per_trial: GPUs of one trial; below 1 trials share one; None: one where the cluster has any, else
            none.
        max_concurrent: Trials at once; None: as many as fit, those included that a growing cluster will have
            room for. On a running cluster more may be asked for than fit: they wait for nodes.
        workers_per_trial: Processes that train one trial together and share its cores and GPUs evenly, on
            whatever nodes they are; None: one for each GPU.
        further_per_trial: Amounts of other resources by name, as the nodes' Ray has them; memory is in bytes.
    """

    address: str = LOCAL
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    workers_per_trial: int | None = None
    further_per_trial: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.cpus_per_trial > 0:
            raise ConfigurationError(f"CPUs per trial must be above 0, got {self.cpus_per_trial:g}; try 1")
        if self.gpus_per_trial is not None and not self.gpus_per_trial >= 0:
            raise ConfigurationError(f"GPUs per trial must be 0 or more, got {self.gpus_per_trial:g}; try 1")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ConfigurationError(
                f"trials at once must be at least 1, got {self.max_concurrent}; leave it out"
            )
        if self.workers_per_trial is not None and self.workers_per_trial < 1:
            raise ConfigurationError(
                f"workers per trial must be at least 1, got {self.workers_per_trial}; leave it out"
            )
        for name, amount in self.further_per_trial.items():
            each = amount / self.n_workers
            if not each > 0 or (each > 1 and each % 1):
                raise ConfigurationError(
                    f"expected for each worker of a trial a whole number of {name}, or less than one, "
                    f"got {each:g}; try {name}=1"
                )
        gpus = (self.gpus_per_trial or 0) / self.n_workers
        if gpus > 0 and not (self.n_workers == 1 and gpus < 1) and gpus != 1:
            raise ConfigurationError(
                f"expected one GPU for each worker of a trial, got {self.gpus_per_trial:g} GPUs for "
                f"{self.n_workers}; try 0.5, so that two trials share a GPU, or 2, so that two workers "
                "train a trial"
            )

    @property
    def n_workers(self) -> int:
        """Processes that train one trial together."""
        return self.workers_per_trial or max(1, int(self.gpus_per_trial or 0))

    @property
    def threads(self) -> int:
        """CPU threads of each."""
        return max(1, int(self.cpus_per_trial / self.n_workers))


@dataclass(frozen=True)
class Slots:
    """How many trials fit.

    Attributes:
        n_trials: Trials at once.
        bundle: What each of its workers uses, by Ray's names.
        n_workers: Processes of each.
    """

    n_trials: int
    bundle: Mapping[str, float]
    n_workers: int = 1


def check(resources: Resources) -> None:
    """Find within seconds what would keep `connect` from working.

    Raises:
        ConfigurationError: If there is too little for one trial, or nothing answers at the address.
    """
    if resources.address == LOCAL:
        here = {"CPU": float(count_cpus()), "GPU": float(torch.cuda.device_count())}
        _fit(resources, [{**here, "memory": math.inf}])  # which Ray itself measures when it is started
        return
    parts = _split(resources.address)
    try:
        if parts.hostname and parts.port:
            socket.create_connection((parts.hostname, parts.port), PATIENCE_S).close()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"expected a Ray cluster at {resources.address!r}, nothing answers there ({error}); "
            "try --ray-address local"
        ) from error
    with connect(resources):
        pass


@contextmanager
def connect(resources: Resources) -> Iterator[Slots]:
    """Connect to Ray, and disconnect (ending a local one) at the end.

    A local Ray listens on localhost only and asks for a token that only this process and its workers know.

    Raises:
        ConfigurationError: If the cluster cannot be reached, a local one does not start, or it has too little
            for one trial.
    """
    is_local = resources.address == LOCAL
    settings = {**_QUIET, **(_ASKING | _WITHOUT_SPARE_WORKERS if is_local else {})}
    if is_local or _split(resources.address).hostname in LOOPBACK:
        settings |= _KEEPING_TO_LOOPBACK
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    _let_ray_look_again(settings)
    import ray

    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with keeping_sigterm():
            if is_local:
                with without_idle_processes():
                    ray.init(
                        address=LOCAL,
                        num_cpus=count_cpus(),
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.CRITICAL,
                        _node_ip_address="127.0.0.1",
                    )
            else:
                with last_words(_GONE.format(address=resources.address)):
                    _join(resources.address)
    except ConfigurationError:
        raise
    except Exception as error:  # a bare one where a node does not start in time
        if is_local:
            raise ConfigurationError(
                f"expected Ray to start on this machine, it did not ({one_line(error)}); "
                "where much else runs, try again later"
            ) from error
        raise ConfigurationError(
            f"expected a Ray cluster at {resources.address!r}, could not connect ({one_line(error)}); "
            "try --ray-address local"
        ) from error
    try:
        living = [node for node in ray.nodes() if node["Alive"]]
        slots = _fit(resources, list_nodes(living, ray.get_runtime_context().get_node_id()))
        with nullcontext() if is_local else last_words(_GONE.format(address=resources.address)):
            yield slots
    finally:
        leave_without_collections(ray.shutdown)


def _join(address: str) -> None:
    """Connect to a running cluster.

    One that asks for another token makes Ray's compiled part write a line each second to standard error, and
    its exception does not say why: the lines are taken aside, and tell. Others are written afterwards.
    """
    import ray

    sys.stderr.flush()
    kept, is_refused = os.dup(2), False
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            is_refused = b"InvalidAuthToken" in _read_all(aside)
            if not is_refused:
                raise
            has_mode = os.environ.get("RAY_AUTH_MODE") == "token"
            hint = (
                "RAY_AUTH_TOKEN, else ~/.ray/auth_token, must hold its token"
                if has_mode
                else "try RAY_AUTH_MODE=token"
            )
            what = "refuses this token" if has_mode else "asks for a token"
            raise ConfigurationError(
                f"expected a Ray cluster at {address!r}, the one there {what}; {hint}"
            ) from error
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if not is_refused:
                os.write(2, _read_all(aside))


def _read_all(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def count_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _split(address: str) -> urllib.parse.SplitResult:
    return urllib.parse.urlsplit(address if "://" in address else f"ray://{address}")


def _let_ray_look_again(settings: Mapping[str, str]) -> None:
    """Let a Ray that is imported already take settings that it only looks for while it is imported."""
    if "ray" not in sys.modules:
        return
    from ray._private import ray_constants
    from ray._raylet import Config  # type: ignore[attr-defined]  # compiled

    if settings.keys() >= _KEEPING_TO_LOOPBACK.keys():
        ray_constants.ENABLE_RAY_CLUSTER = False
    if settings.keys() >= _ASKING.keys():
        Config.initialize("")


def _fit(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> Slots:
    """Return how many trials run at once on nodes with such resources.

    Each worker runs on one node.
    """
    n_workers, gpus = resources.n_workers, resources.gpus_per_trial
    if gpus is None:
        has_gpu = any(node.get("GPU", 0.0) >= 1 for node in nodes)
        gpus = float(n_workers) if has_gpu else 0.0
    per_trial = {"CPU": resources.cpus_per_trial, "GPU": gpus, **resources.further_per_trial}
    bundle = {name: amount / n_workers for name, amount in per_trial.items() if amount > 0}
    n_cores = math.floor(sum(node.get("CPU", 0.0) for node in nodes))
    if gpus == 0 and n_workers > (most := max(1, n_cores)):
        raise ConfigurationError(
            f"expected at most {most} workers for one trial, one for each core there is, got {n_workers}; "
            f"try --workers-per-trial {most}"
        )
    n_trials = sum(_count_places(node, bundle) for node in nodes) // n_workers
    if n_trials == 0:
        has = [
            name_amounts({name: node.get(name, 0.0) for name in per_trial})
            for node in sorted(nodes, key=lambda node: -node.get("CPU", 0.0))
        ]
        each = f", {n_workers} workers with a part each" if n_workers > 1 else ""
        who = "cluster has" if len(has) == 1 else "nodes of the cluster have"
        raise ConfigurationError(
            f"one trial needs {name_amounts(per_trial)}{each}, the {who} {'; '.join(has) or 'nothing'}; "
            "ask for less with --resources-per-trial, --cpus-per-trial or --gpus-per-trial"
        )
    n_wanted = resources.max_concurrent or n_trials
    return Slots(min(n_trials, n_wanted) if resources.address == LOCAL else n_wanted, bundle, n_workers)


def _count_places(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """Return how many workers fit onto a node."""
    return math.floor(min(node.get(name, 0.0) / amount for name, amount in bundle.items()) + 1e-9)


def name_amounts(amounts: Mapping[str, float]) -> str:
    """Return them as `--resources-per-trial` takes them."""
    return ",".join(
        f"{name}={amount / 2**30:.3g}GiB" if name == "memory" else f"{name}={amount:g}"
        for name, amount in amounts.items()
    )
