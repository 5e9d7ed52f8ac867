"""A process that is told to end keeps what it has first, so that somebody else goes on from there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_STATUS = 1


class Preempted(SystemExit):
    """The process was told to end; what it was at can go on elsewhere."""


class Preemption:
    """Whether this process was told to end.

    Being told raises `Preempted` wherever the process is, except where it said that it looks for itself.

    Attributes:
        is_asked: Whether it was told.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_deferred = False

    def listen(self) -> None:
        """Hear SIGTERM from now on; only the main thread of a process can."""
        signal.signal(signal.SIGTERM, self._hear)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let nothing be raised for a while: whoever defers it calls `check` where it can leave."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def check(self) -> None:
        """Leave here if the process was told to.

        Raises:
            Preempted: If so.
        """
        if self.is_asked:
            raise Preempted(EXIT_STATUS)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        if not self._is_deferred:
            self.check()
