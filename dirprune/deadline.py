"""Give up on Python code of others that may take for ever, in whatever thread it runs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body after so many seconds.

    It is raised between two steps of the interpreter: a single call of compiled code is waited for. The body
    must not swallow it. Where the body ends in the very moment, it may be raised right behind it; so the
    whole `with` statement belongs into the `try`.

    Args:
        seconds: > 0.
    """
    thread = ctypes.c_ulong(threading.get_ident())
    guard = threading.Lock()
    is_over = False

    def ring() -> None:
        with guard:
            if not is_over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TimeoutError))

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with guard:
            is_over = True
        timer.cancel()
