"""What SIGTERM does to a driver: the same as Ctrl-C, also where another library has ideas of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, as batch systems and containers send it, interrupt the body as Ctrl-C does.

    Only the main thread hears signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)  # None: a handler that is not Python's


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Let SIGTERM do what it did before once the body has started Ray, which would leave at once.

    Raises:
        KeyboardInterrupt: If SIGTERM came meanwhile.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: a handler that is not Python's
