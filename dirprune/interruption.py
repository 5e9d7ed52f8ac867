"""What Ctrl-C and SIGTERM do while libraries are loaded and run that have ideas of their own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


@contextmanager
def leaving_at_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process at once, with one line and status 130, while the body imports.

    A KeyboardInterrupt in numpy's or torch's imports is caught there by some, who go on half imported, into
    other errors or without an end. Nothing has begun yet that would have to be kept. Where someone types, as
    in a notebook, and where Ctrl-C does something else already, all stays as it is.
    """
    is_main = threading.current_thread() is threading.main_thread()
    raising = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _interrupt}
    replaced = {number: handler for number, handler in raising.items() if signal.getsignal(number) is handler}
    if not is_main or hasattr(sys, "ps1"):
        replaced = {}
    for number in replaced:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")  # nothing of Python may be half imported
    os._exit(INTERRUPTED)


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
