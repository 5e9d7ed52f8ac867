"""Python's collector of garbage in a driver: when it may run, and what it looks at."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudyObserver

EVERY = 500
"""Changes of trials after which a driver looks for garbage among what is new."""
NEVER = 2**31 - 1


class GarbageSweep(StudyObserver):
    """Look for garbage among what is new after every so many changes of trials, where no trial is asked for.

    The driver's thread does so itself, not a callback of the collector: in one of those, Ctrl-C is lost.

    Args:
        every: Changes.
    """

    def __init__(self, every: int = EVERY) -> None:
        self.every, self.n_changes = every, 0

    def trial_changed(self, record: TrialRecord) -> None:
        """Count a change."""
        self.count_()

    def count_(self) -> None:
        """Count a change; sweep if it is time."""
        self.n_changes += 1
        if self.n_changes % self.every == 0:
            set_aside()


def set_aside() -> None:
    """Collect what is garbage, and let later collections look at nothing of what is left."""
    gc.collect()
    gc.freeze()


@contextmanager
def sweeping(every: int = EVERY) -> Iterator[GarbageSweep]:
    """Let full collections in the body be made by an observer alone, among what is new since the last one.

    A driver of 10,000 trials keeps millions of objects until it ends. Looking through them takes longer than
    asking for a trial, and finds nothing. When the body ends, all is as it was. Where a program has set
    objects aside itself (`gc.freeze`), they stay aside.

    Args:
        every: See `GarbageSweep`.
    """
    is_ours = gc.get_freeze_count() == 0
    young, middle, old = gc.get_threshold()
    set_aside()
    gc.set_threshold(young, middle, NEVER)
    try:
        yield GarbageSweep(every)
    finally:
        gc.set_threshold(young, middle, old)
        if is_ours:
            gc.unfreeze()


def leave_without_collections(leave: Callable[[], object]) -> None:
    """Collect what there is, and leave Ray while no collection begins by itself, in any thread.

    A collection in another thread that frees a reference to one of Ray's objects after Ray's worker has ended
    ends the whole process with status 1, without a word.

    Args:
        leave: Is called even where Ctrl-C comes before it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
    finally:
        try:
            leave()
        finally:
            if was_enabled:
                gc.enable()
