"""A trial whose machines are lost again and again goes on, where as many lost workers would end it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dirprune.records.events import TrialEvents, read_events, replay
from dirprune.tuning import storage
from dirprune.tuning.execution import MAX_LOST_WORKERS
from tests.integration.chaos import Chaos

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WAIT_S = 150


class BriefDense(Chaos):
    """A study whose dense network is trained for one epoch: none of what is shown here is about it."""

    def start_driver(self, *arguments: str) -> subprocess.Popen[bytes]:
        return super().start_driver("--dense-epochs", "1", *arguments)


def events_of(chaos: Chaos, number: int) -> TrialEvents:
    return replay(read_events(chaos.folder.events(number)))


def wait(chaos: Chaos, number: int, n_attempts: int, n_reports: int) -> None:
    """Return when the trial has made so many attempts and reports."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        chaos.check_driver()
        events = events_of(chaos, number)
        if events.n_attempts >= n_attempts and len(events.curve) >= n_reports:
            return
        time.sleep(0.1)
    raise TimeoutError(f"{events_of(chaos, number)}\n{chaos.read_log()}")


@pytest.mark.parametrize("lose", [Chaos.kill_node, Chaos.end_node], ids=["power-cut", "told-to-end"])
def test_lost_machines_never_count_against_a_trial(tmp_path: Path, lose: Callable[[Chaos], object]) -> None:
    number = 1
    with closing(BriefDense(tmp_path / "out", None, seed=0, n_nodes=1, seconds=1.5)) as chaos:
        wait(chaos, number, n_attempts=1, n_reports=2)  # the first one's checkpoint has been written by then
        for n_lost in range(1, MAX_LOST_WORKERS + 2):
            lose(chaos)
            wait(chaos, number, n_attempts=n_lost + 1, n_reports=1)
        wait(chaos, number + 1, n_attempts=1, n_reports=0)
        (record,) = [record for record in storage.read_records(chaos.folder) if record.number == number]
        assert record.state in ("COMPLETE", "PRUNED"), record.reason
        assert events_of(chaos, number).n_attempts == MAX_LOST_WORKERS + 2
        starts = [e for e in read_events(chaos.folder.events(number)) if e["event"] == "started"]
        assert all(start["resumed_from"] is not None for start in starts[1:])
