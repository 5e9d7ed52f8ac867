"""A process that is told to end: at once, or where it says."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from dirprune.preemption import Preempted, Preemption


@pytest.fixture
def preemption() -> Iterator[Preemption]:
    before = signal.getsignal(signal.SIGTERM)
    preemption = Preemption()
    preemption.listen()
    yield preemption
    signal.signal(signal.SIGTERM, before)


def test_being_told_ends_what_goes_on_at_once(preemption: Preemption) -> None:
    with pytest.raises(Preempted) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 1


def test_whoever_defers_it_leaves_where_it_looks(preemption: Preemption) -> None:
    with preemption.deferred():
        preemption.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.is_asked
        with pytest.raises(Preempted):
            preemption.check()
    with pytest.raises(Preempted):
        os.kill(os.getpid(), signal.SIGTERM)
