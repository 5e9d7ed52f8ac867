"""Code that takes for ever is given up on, and what comes behind it is left alone."""

import gc
import threading
import time

import pytest

from dirprune.deadline import deadline


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def test_python_code_is_interrupted():
    began = time.monotonic()
    with pytest.raises(TimeoutError), deadline(0.2):
        spin(60)
    assert time.monotonic() - began < 30


def test_a_busy_machine_takes_no_time_away():
    with deadline(0.2):  # waits, as a thread does that others keep from the processor
        time.sleep(0.5)
    with pytest.raises(TimeoutError), deadline(0.05):
        wait(60)


def test_what_loses_it_is_told_again():
    def lose_it() -> str:
        try:
            wait(60)
        except TimeoutError:
            wait(60)
        return "never"

    with pytest.raises(TimeoutError), deadline(0.02):
        lose_it()
    assert gc.isenabled()


def test_it_works_in_another_thread():
    seen = []

    def work() -> None:
        try:
            with deadline(0.2):
                spin(60)
        except TimeoutError:
            seen.append("given up")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert seen == ["given up"]


def test_what_ends_in_time_is_not_disturbed_later():
    with deadline(0.1):
        result = 1 + 1
    spin(0.3)
    assert result == 2
