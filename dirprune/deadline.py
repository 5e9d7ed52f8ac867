"""Give up on Python code of others that may take for ever, in whatever thread it runs."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_WAITING = 10.0
"""How often its processor time a body may take on the wall: what waits for ever must end as well."""
LEAST_S = 0.01


def read_processor_time() -> Callable[[], float]:
    """Return what tells, in any thread, the seconds of processor time that this one has used since now.

    Where a system does not know, it tells the time on the wall.
    """
    if not hasattr(time, "pthread_getcpuclockid"):
        began = time.monotonic()
        return lambda: time.monotonic() - began
    clock = time.pthread_getcpuclockid(threading.get_ident())
    used = time.clock_gettime(clock)
    return lambda: time.clock_gettime(clock) - used


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body after so many seconds of its thread's processor time.

    So a busy machine changes nothing; after ten times as long on the wall it is raised in any case.

    It is raised between two steps of the interpreter: a single call of compiled code is waited for. The body
    must not swallow it. Where the body ends in the very moment, it may be raised right behind it; so the
    whole `with` statement belongs into the `try`.

    Args:
        seconds: > 0.
    """
    thread = ctypes.c_ulong(threading.get_ident())
    guard = threading.Lock()
    is_over = False
    timers: list[threading.Timer] = []
    used_s, began = read_processor_time(), time.monotonic()

    def ring() -> None:
        with guard:
            if is_over:
                return
            left_s = seconds - used_s()
            is_early = left_s > 0 and time.monotonic() - began < MOST_WAITING * seconds
            start(max(left_s, LEAST_S) if is_early else seconds)  # again: a `__del__` may have lost it
            if not is_early:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TimeoutError))

    def start(delay_s: float) -> None:
        timer = threading.Timer(delay_s, ring)
        timer.daemon = True
        timers.append(timer)
        timer.start()

    collects = gc.isenabled()
    gc.disable()  # what is raised in one of its callbacks is lost
    start(seconds)
    try:
        yield
    finally:
        try:
            with guard:
                is_over = True
            timers[-1].cancel()
        finally:  # also where it is raised in this very moment
            if collects:
                gc.enable()
