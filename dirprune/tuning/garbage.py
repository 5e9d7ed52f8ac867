"""Python's collector of garbage in a driver: when it may run, and what it looks at."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OLDEST = 2
"""The generation of objects whose collection looks at all that a process has."""


@contextmanager
def looking_at_new_objects() -> Iterator[None]:
    """Let a collection in the body look only at objects that are newer than the last full one.

    A driver of 10,000 trials keeps millions of objects until it ends. Looking through them takes longer than
    asking for a trial, and finds nothing. What one full collection has left is therefore not looked at by the
    next; when the body ends, all is as it was. Where a program has set objects aside itself (`gc.freeze`),
    they stay aside.
    """
    is_ours = gc.get_freeze_count() == 0
    gc.freeze()
    gc.callbacks.append(_set_survivors_aside)
    try:
        yield
    finally:
        gc.callbacks.remove(_set_survivors_aside)
        if is_ours:
            gc.unfreeze()


def _set_survivors_aside(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == OLDEST:
        gc.freeze()


@contextmanager
def without_collections() -> Iterator[None]:
    """Collect what there is, and let no collection begin by itself in the body, in any thread.

    For leaving Ray: a collection in another thread that then frees a reference to one of Ray's objects ends
    the whole process with status 1, without a word, because Ray's worker is gone already.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        yield
    finally:
        if was_enabled:
            gc.enable()
