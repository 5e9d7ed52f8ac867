"""How a running study is brought to its end in order: by patience or by the clock."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dirprune.errors import ConfigurationError
from dirprune.records.front import GrowingFront
from dirprune.records.hypervolume import compute_hypervolume
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudyObserver
from dirprune.study.stopping import Patience
from dirprune.tuning.ledger import Ledger


class PatienceWatch(StudyObserver):
    """End a study's search when its hypervolume no longer grows; trials under way still end.

    A resumed study counts its earlier trials as well, by number.

    Args:
        patience: The rule.
        ledger: The study's accounts.
    """

    def __init__(self, patience: Patience, ledger: Ledger) -> None:
        self.patience, self.ledger = patience, ledger
        self._front = GrowingFront(ledger.summary.objectives)
        self._settled: set[int] = set()
        self._hypervolume = 0.0

    def trial_changed(self, record: TrialRecord) -> None:
        """Take a trial that has become complete or was halted; a failed one says nothing of the search."""
        is_complete = record.state == "COMPLETE"
        if not is_complete and (not record.is_halted or record.number in self._settled):
            return
        before = self._hypervolume
        if is_complete:
            self._front.add_([record])
            summary = self.ledger.summary
            self._hypervolume = compute_hypervolume(
                self._front.undominated, summary.objectives, summary.reference_point, summary.dense_costs
            )
        if record.number in self._settled and self._hypervolume == before:
            return  # it was counted when it paused
        self._settled.add(record.number)
        if self.patience.settled(self._hypervolume):
            self.ledger.finish(self.patience.reason)


class TimeLimit:
    """Interrupt what runs when the time is up, as Ctrl-C does; the clock runs from the beginning.

    Args:
        seconds: That there are; None never interrupts.

    Attributes:
        is_over: Whether it was the clock that interrupted.
    """

    def __init__(self, seconds: float | None) -> None:
        self.is_over = False
        self.seconds = seconds
        self._began = time.monotonic()

    @property
    def reason(self) -> str:
        """Why a study ended whose time is over."""
        return f"the time limit of {self.seconds:g} s is over"

    @contextmanager
    def running_out(self) -> Iterator[None]:
        """Raise KeyboardInterrupt in the body when the time is up.

        Raises:
            ConfigurationError: If not in the main thread, which alone can be interrupted.
        """
        if self.seconds is None:
            yield
            return
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError(
                "expected a study with a time limit in the main thread, got another one; leave the limit out"
            )
        left_s = self.seconds - (time.monotonic() - self._began)
        if left_s <= 0:
            self._ring(signal.SIGALRM, None)
        previous = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, left_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self.is_over = True
        raise KeyboardInterrupt
