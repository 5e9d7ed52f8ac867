"""A study that ends before all its trials: by patience on real accounts, by the clock on a real Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dirprune.records.ending import read_ending
from dirprune.records.folder import StudyFolder
from dirprune.study.stopping import Patience
from dirprune.tuning import storage
from dirprune.tuning.endings import PatienceWatch, TimeLimit
from tests.tuning.test_ledger import metrics_of, open_ledger

SCRIPT = Path(__file__).parent.parent / "integration" / "toy_study.py"


def run_toy(root: Path, *arguments: str, seconds: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--output", root, "--no-tracking", *arguments],
        env={**os.environ, "TOY_SECONDS": seconds},
        capture_output=True,
        text=True,
        timeout=240,
    )


def watched(root: Path, n_trials: int):
    ledger = open_ledger(root, trials=50)
    ledger.observers = [PatienceWatch(Patience(n_trials), ledger)]
    ledger.start()
    return ledger


def run_trials(ledger, accuracies) -> int:
    """Complete trials with these accuracies; return how many the study started."""
    for n_started, accuracy in enumerate(accuracies):
        configuration = ledger.next_configuration()
        if configuration is None:
            return n_started
        ledger.completed(configuration.number, metrics_of(ledger, configuration, accuracy))
    return len(accuracies)


def test_search_without_growth_ends_and_says_why(tmp_path):
    ledger = watched(tmp_path, 4)
    # the dense network alone is at the reference point's cost, so that the second trial is the first to count
    assert run_trials(ledger, [0.99, 0.9, *[0.1] * 20]) == 6
    assert "over the last 4 settled trials" in ledger.finish_reason
    assert not ledger.end_reason
    assert not ledger.has_work


def test_resumed_search_has_waited_already_and_more_patience_lets_it_go_on(tmp_path):
    run_trials(watched(tmp_path, 4), [0.99, 0.9, *[0.1] * 20])
    again = watched(tmp_path, 4)
    assert not again.has_work
    assert watched(tmp_path, 6).has_work


def test_trial_under_way_still_ends_and_counts(tmp_path):
    ledger = watched(tmp_path, 1)
    run_trials(ledger, [0.99, 0.9])
    under_way = [ledger.next_configuration() for _ in range(2)]
    ledger.completed(under_way[0].number, metrics_of(ledger, under_way[0], 0.1))
    assert ledger.next_configuration() is None
    ledger.completed(under_way[1].number, metrics_of(ledger, under_way[1], 0.95))
    assert ledger.records[under_way[1].number].state == "COMPLETE"


def test_clock_interrupts_and_is_taken_back():
    limit = TimeLimit(0.05)
    with pytest.raises(KeyboardInterrupt), limit.running_out():
        time.sleep(5)
    assert limit.is_over
    other = TimeLimit(0.05)
    with other.running_out():
        pass
    time.sleep(0.1)
    assert not other.is_over


@pytest.mark.slow
def test_time_limit_keeps_everything_and_resume_goes_on(tmp_path):
    first = run_toy(tmp_path, "--trials", "10", "--time-limit", "40s", seconds="1.6")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Traceback" not in first.stderr
    assert "the time limit of 40 s is over" in first.stdout
    folder = StudyFolder(tmp_path / "toy")
    assert read_ending(folder) == ""
    before = storage.read_records(folder)
    running = [record.number for record in before if record.state == "RUNNING"]
    assert running, "no trial was under way, so nothing is shown"
    second = run_toy(tmp_path, "--trials", "10", "--resume")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "ended early" not in second.stdout
    after = storage.read_records(folder)
    assert [record.number for record in after] == list(range(10))
    assert {record.state for record in after} <= {"COMPLETE", "PRUNED"}
    for old in before:
        if old.number not in running:
            assert after[old.number].metrics == old.metrics
