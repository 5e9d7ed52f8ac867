"""A device for one measurement of time at a time, and only while nothing else computes there."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from dirprune.errors import ConfigurationError
from dirprune.files import user_cache_folder

logger = logging.getLogger("dirprune.quiet")

IDLE_SHARE = 0.5
"""Share of a core that must be idle for each thread of the measurement."""
MAX_GPU_USE = 0.2
"""Share of the time in which others may compute on a GPU: a screen's pictures do."""
N_SAMPLES = 5
SAMPLE_S = 0.2
PATIENCE_S = 600.0
"""How long a measurement waits for another one on the same device."""


@contextmanager
def device_to_itself(device: str | torch.device, n_threads: int = 1) -> Iterator[None]:
    """Let nobody else of this user measure on a device of this machine for a while.

    A lock in the user's cache folder, by machine and device, keeps measurements of all studies and commands
    apart, whether they use Ray or not. No trial measures: a study does so before its first one, and
    `dirprune latency` beside none. What else computes there is not held back but noticed: on Linux a CPU
    without idle cores is refused here, and a GPU that nvidia-smi sees busy; any device by the spread of its
    passes (see `dirprune.latency.measure_quietly` and `dirprune.turns`) or because no model explains them
    (`dirprune.study.latency`).

    Args:
        device: Where networks are timed.
        n_threads: CPU threads of a pass.

    Raises:
        ConfigurationError: If another measurement does not end, or the cores or the GPU are not idle.
    """
    chosen = torch.device(device)
    name = "cpu" if chosen.type == "cpu" else f"{chosen.type}-{chosen.index or 0}"  # cuda is cuda:0
    path = user_cache_folder() / "locks" / f"latency-{platform.node()}-{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another measurement runs on %s: waiting for its end", device)
        try:
            lock.acquire(timeout=PATIENCE_S)
        except Timeout:
            raise ConfigurationError(
                f"expected {device} for this measurement alone, got another one that has not ended for "
                f"{PATIENCE_S / 60:g} minutes (lock {path}); try again after it"
            ) from None
    try:
        if chosen.type == "cpu":
            _check_idle(n_threads)
        elif chosen.type == "cuda":
            _check_gpu_idle(chosen.index or 0)
        yield
    finally:
        lock.release()


def _check_idle(n_threads: int) -> None:
    """Raise ConfigurationError unless there are idle cores, in the best of some samples."""
    wanted = IDLE_SHARE * n_threads
    found = 0.0
    for _ in range(N_SAMPLES):
        idle = count_idle_cores(SAMPLE_S)
        if idle is None or idle >= wanted:
            return
        found = max(found, idle)
    raise ConfigurationError(
        f"expected a quiet device with {wanted:g} idle cores or more for {n_threads} threads, got "
        f"{found:.1f} idle of {len(os.sched_getaffinity(0))}; end what else runs there"
    )


def _check_gpu_idle(index: int) -> None:
    """Raise ConfigurationError if a GPU is busy even in the best of some samples."""
    least = 1.0
    for _ in range(N_SAMPLES):
        use = read_gpu_use(index)
        if use is None or use <= MAX_GPU_USE:
            return
        least = min(least, use)
        time.sleep(SAMPLE_S)
    raise ConfigurationError(
        f"expected a quiet device, busy for {MAX_GPU_USE:.0%} of the time at most, got {least:.0%} of GPU "
        f"{index}; end what else runs there"
    )


def read_gpu_use(index: int) -> float | None:
    """Return the share of the last moments in which anybody computed on a GPU; None where nobody says.

    Args:
        index: As torch counts the GPUs that this process sees.
    """
    program = shutil.which("nvidia-smi")
    if program is None or not torch.cuda.is_available():
        return None
    name = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
    asked = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", name]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return int(answer) / 100 if answer.isdecimal() else None  # of a part of a card it says [N/A]


def count_idle_cores(seconds: float) -> float | None:
    """Return how many of this process's cores nobody used in the next seconds; None where Linux is not."""
    before = _read_idle_s()
    if before is None:
        return None
    began = time.monotonic()
    time.sleep(seconds)
    after = _read_idle_s()
    assert after is not None
    return (after - before) / (time.monotonic() - began)


def _read_idle_s() -> float | None:
    """Return the seconds for which this process's cores have been idle, added up."""
    statistics = Path("/proc/stat")
    if not statistics.is_file() or not hasattr(os, "sched_getaffinity"):
        return None
    own = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in statistics.read_text(encoding="utf-8").splitlines()]
    ticks = sum(int(fields[4]) + int(fields[5]) for fields in lines if fields and fields[0] in own)
    return ticks / os.sysconf("SC_CLK_TCK")
