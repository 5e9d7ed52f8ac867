"""What the collector of garbage looks at in a driver, and that it never runs while Ray is being left."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from dirprune.tuning.garbage import leave_without_collections, sweeping

LEAVING = """
import gc, sys, threading
sys.setswitchinterval(1e-5)
from dirprune.tuning.cluster import Resources, connect

class Node:
    pass

with connect(Resources()):
    import ray
    from ray._private.worker import global_worker
    nodes = [Node() for _ in range(3000)]
    for node in nodes:
        node.itself, node.reference = node, ray.put(1)
    del node
    gc.set_threshold(100, 1, 1)

    def work():
        while hasattr(global_worker, "gcs_client"):  # which Ray gives up shortly before its worker
            pass
        nodes.clear()
        while hasattr(global_worker, "core_worker"):
            kept = [[] for _ in range(1000)]

    worker = threading.Thread(target=work)
    worker.start()
worker.join()
print("left in order")
"""


SWEEPING = """
import signal, time
from dirprune.tuning.garbage import sweeping

signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    with sweeping(every=1) as sweep:
        kept = [[[number]] for number in range(500_000)]
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        sweep.count_()
        time.sleep(1)
except KeyboardInterrupt:
    print("heard")
"""


class Node:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def make_garbage() -> Callable[[], Node | None]:
    """Return what tells whether a lost object is still there."""
    return weakref.ref(Node())


def test_what_a_sweep_has_left_is_looked_at_no_more_and_new_garbage_is_found():
    before = [[number] for number in range(1000)]
    with sweeping(every=3) as sweep:
        assert len(gc.get_objects()) < len(before)
        survivors = [[number] for number in range(1000)]
        lost = make_garbage()
        for _ in range(2):
            sweep.count_()
        assert lost() is not None
        assert len(gc.get_objects()) > len(survivors)
        sweep.count_()
        assert lost() is None
        assert len(gc.get_objects()) < len(survivors)
    assert len(gc.get_objects()) > len(before) + len(survivors)


def test_what_was_garbage_before_is_not_kept():
    lost = make_garbage()
    with sweeping():
        assert lost() is None


def test_between_sweeps_no_collection_looks_at_everything():
    full = []
    note = lambda phase, info: full.append(phase) if info["generation"] == 2 else None  # noqa: E731
    with sweeping():
        gc.callbacks.append(note)
        kept = [[[number]] for number in range(200_000)]
        gc.callbacks.remove(note)
    assert len(kept) == 200_000
    assert full == []


@pytest.mark.slow
def test_ctrl_c_during_a_sweep_is_heard():
    """In a process of its own: hypothesis has a callback of the collector in this one."""
    done = subprocess.run(
        [sys.executable, "-c", SWEEPING], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\n", "")


def test_the_collector_is_as_before_when_a_study_ends_badly():
    settings = gc.get_threshold(), gc.get_freeze_count(), list(gc.callbacks)
    with pytest.raises(KeyboardInterrupt), sweeping():
        raise KeyboardInterrupt
    assert (gc.get_threshold(), gc.get_freeze_count(), list(gc.callbacks)) == settings


def test_what_a_program_has_set_aside_itself_stays_aside():
    gc.freeze()
    try:
        n_frozen = gc.get_freeze_count()
        with sweeping():
            pass
        assert gc.get_freeze_count() >= n_frozen
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("is_enabled", [True, False])
def test_no_collection_begins_while_ray_is_being_left(is_enabled):
    lost = make_garbage()
    seen = []
    (gc.enable if is_enabled else gc.disable)()
    try:
        leave_without_collections(lambda: seen.append((lost(), gc.isenabled())))
        assert seen == [(None, False)]
        assert gc.isenabled() == is_enabled
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_thread_that_makes_garbage_does_not_end_a_driver_that_leaves_ray(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LEAVING],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.returncode, done.stdout) == (0, "left in order\n"), done.stderr
