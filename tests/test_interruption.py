"""What signals do while libraries load, and that they do afterwards what they did before."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from dirprune.interruption import ended_by_sigterm, leaving_at_ctrl_c


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, also where tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def handlers() -> tuple[object, object]:
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


def test_signals_do_afterwards_what_they_did_before_also_where_an_import_fails() -> None:
    with ended_by_sigterm():
        before = handlers()
        with suppress(ImportError), leaving_at_ctrl_c():
            during = handlers()
            raise ImportError("no such module")
        assert handlers() == before
    assert not set(during) & set(before)


def test_what_a_program_does_at_ctrl_c_stays_its_own() -> None:
    def own(number: int, frame: object) -> None:
        pass

    signal.signal(signal.SIGINT, own)
    before = handlers()
    with leaving_at_ctrl_c():
        assert handlers() == before


def test_ctrl_c_ends_no_program_in_which_someone_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(KeyboardInterrupt), leaving_at_ctrl_c():
        signal.raise_signal(signal.SIGINT)
