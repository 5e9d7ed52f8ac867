"""What the collector of garbage looks at in a driver, and that it never runs while Ray is being left."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from dirprune.tuning.garbage import looking_at_new_objects, without_collections

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


class Node:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_full_collections_look_at_what_is_new_and_find_garbage_there():
    before = [[number] for number in range(1000)]
    with looking_at_new_objects():
        assert len(gc.get_objects()) < len(before)
        node = Node()
        lost = weakref.ref(node)
        del node
        survivors = [[number] for number in range(1000)]
        gc.collect()
        assert lost() is None
        assert len(gc.get_objects()) < len(survivors)
    assert len(gc.get_objects()) > len(before) + len(survivors)


def test_the_collector_is_as_before_when_a_study_ends_badly():
    callbacks, n_frozen = list(gc.callbacks), gc.get_freeze_count()
    with pytest.raises(KeyboardInterrupt), looking_at_new_objects():
        raise KeyboardInterrupt
    assert gc.callbacks == callbacks
    assert gc.get_freeze_count() == n_frozen


def test_what_a_program_has_set_aside_itself_stays_aside():
    gc.freeze()
    try:
        n_frozen = gc.get_freeze_count()
        with looking_at_new_objects():
            pass
        assert gc.get_freeze_count() >= n_frozen
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("is_enabled", [True, False])
def test_no_collection_begins_while_ray_is_being_left(is_enabled):
    node = Node()
    lost = weakref.ref(node)
    del node
    (gc.enable if is_enabled else gc.disable)()
    try:
        with without_collections():
            assert lost() is None
            assert not gc.isenabled()
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
