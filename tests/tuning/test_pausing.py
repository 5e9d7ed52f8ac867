"""The accounts of a study whose trials pause, on a real journal file and without Ray."""

from __future__ import annotations

from contextlib import nullcontext

import optuna
import pytest
from optuna.trial import TrialState

from dirprune.records.events import EventLog, read_events, replay
from dirprune.study.observer import StudyObserver
from dirprune.study.space import SearchSpace
from dirprune.study.stopping import Patience
from dirprune.tuning import storage
from dirprune.tuning.endings import PatienceWatch
from dirprune.tuning.ledger import Ledger
from tests.tuning.test_ledger import CrashError, metrics_of, open_ledger, raise_crash, told

SPACE = SearchSpace(uniform_keep_ratios=())  # all but the dense network are the sampler's
CHANGES = {"halving": "promoting", "trials": 6, "space": SPACE}


def run_to(ledger: Ledger, number: int, images: int, accuracy: float, macs: float | None = None) -> bool:
    """Let a trial report at a rung, and give it back if it is told to halt, as Ray does."""
    EventLog(ledger.folder.events(number), f"attempt of {number}").append("started", resumed_from=None)
    (ledger.folder.checkpoint_dir(number)).mkdir(parents=True, exist_ok=True)
    metrics = {"val_accuracy": accuracy, "macs": macs or 1000.0}
    goes_on = ledger.reported(number, images, metrics)
    if not goes_on:
        ledger.halted(number, images)
    return goes_on


def pause_three(ledger: Ledger) -> None:
    """Hand out the dense network and three trials, of which 1 pauses, 2 goes on and 3 pauses."""
    configurations = [ledger.next_configuration() for _ in range(4)]
    assert [configuration.number for configuration in configurations] == [0, 1, 2, 3]
    ledger.completed(0, metrics_of(ledger, configurations[0], 0.99))
    assert not run_to(ledger, 1, 0, 0.5)
    assert run_to(ledger, 2, 0, 0.6)
    assert not run_to(ledger, 3, 0, 0.4)


def test_a_trial_that_is_not_among_the_best_pauses_and_keeps_its_checkpoint(tmp_path):
    ledger = open_ledger(tmp_path, **CHANGES)
    pause_three(ledger)
    trial = told(ledger, 1)
    assert trial.state == TrialState.RUNNING
    assert trial.user_attrs["paused_at"] == 0
    assert ledger.folder.checkpoint_dir(1).exists()
    assert ledger.records[1].is_paused
    assert ledger.records[1].reason == "paused at 0 images"
    assert (ledger.counts["PAUSED"], ledger.counts["RUNNING"]) == (2, 1)


def test_the_best_paused_trial_goes_on_as_soon_as_enough_have_come(tmp_path):
    ledger = open_ledger(tmp_path, **CHANGES)
    pause_three(ledger)
    new = ledger.next_configuration()
    assert new.number == 4  # of three one may go on, and 2 does
    assert not run_to(ledger, 4, 0, 0.3)
    promoted = ledger.next_configuration()
    assert promoted.number == 1
    assert promoted == type(promoted).from_json(told(ledger, 1).user_attrs["configuration"])
    assert told(ledger, 1).user_attrs["paused_at"] is None
    assert not ledger.records[1].is_paused
    assert ledger.reported(1, 0, {"val_accuracy": 0.5, "macs": 1000.0})  # it repeats its last report
    assert ledger.next_configuration().number == 5


def test_what_is_left_waits_for_those_that_run_and_then_stops(tmp_path):
    ledger = open_ledger(tmp_path, **{**CHANGES, "trials": 4})
    pause_three(ledger)
    assert ledger.next_configuration() is None
    assert ledger.may_have_more  # 2 runs, and may pause at the next rung
    ledger.completed(2, {"val_accuracy": 0.7, "macs": 1000.0})
    assert ledger.next_configuration() is None
    assert not ledger.may_have_more
    assert not ledger.has_work
    ledger.end(interrupted=False)
    states = [record.state for record in storage.read_records(ledger.folder)]
    assert states == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED"]
    assert told(ledger, 1).user_attrs["stopped_at"] == 0
    assert ledger.records[1].reason == "stopped at 0 images"
    assert replay(read_events(ledger.folder.events(1))).stopped == {"images": 0}
    assert not list(ledger.folder.checkpoints_dir.glob("*"))
    assert "PAUSED" not in [key for key, n in ledger.counts.items() if n]


def test_after_ctrl_c_paused_trials_still_wait_and_the_next_driver_promotes_them(tmp_path):
    first = open_ledger(tmp_path, **CHANGES)
    pause_three(first)
    first.end(interrupted=True)
    assert told(first, 1).state == TrialState.RUNNING
    second = open_ledger(tmp_path, **CHANGES)
    assert second.has_work
    assert second.counts["PAUSED"] == 2
    assert second.next_configuration().number == 2  # it ran when the driver went
    assert second.next_configuration().number == 4
    assert not run_to(second, 4, 0, 0.3)
    assert second.next_configuration().number == 1
    assert second.next_configuration().number == 5
    assert second.next_configuration() is None  # six in all, promotions are not new ones


def test_a_trial_that_was_promoted_is_not_promoted_again_by_the_next_driver(tmp_path):
    first = open_ledger(tmp_path, **CHANGES)
    pause_three(first)
    first.next_configuration()
    run_to(first, 4, 0, 0.3)
    assert first.next_configuration().number == 1
    first.failed(1, "ValueError: no")
    second = open_ledger(tmp_path, **CHANGES)
    assert [second.next_configuration().number for _ in range(2)] == [2, 5]
    assert second.next_configuration() is None


def test_driver_that_vanishes_between_a_pause_and_its_accounts_has_paused_it(tmp_path):
    first = open_ledger(tmp_path, **CHANGES)
    for _ in range(2):
        first.next_configuration()
    assert not first.reported(1, 0, {"val_accuracy": 0.5, "macs": 1000.0})
    second = open_ledger(tmp_path, **CHANGES)
    assert second.counts["PAUSED"] == 1
    assert second.next_configuration().number == 0
    assert second.next_configuration().number == 2


@pytest.mark.parametrize("n_written", [0, 1])
def test_driver_of_a_database_that_vanishes_while_it_writes_a_pause_promotes_nobody(
    tmp_path, monkeypatch, n_written
):
    first = open_ledger(tmp_path, **CHANGES)
    for _ in range(2):
        first.next_configuration()
    write, written = optuna.trial.Trial.set_user_attr, []

    def write_so_many(*arguments):
        if len(written) == n_written:
            raise CrashError
        written.append(arguments)
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_together", lambda _: nullcontext())  # as of a database
        patch.setattr(optuna.trial.Trial, "set_user_attr", write_so_many)
        with pytest.raises(CrashError):
            first.reported(1, 0, {"val_accuracy": 0.5, "macs": 1000.0})
    second = open_ledger(tmp_path, **CHANGES)
    assert [second.next_configuration().number for _ in range(2)] == [0, 1]  # it reports once more
    assert not run_to(second, 1, 0, 0.5)
    assert second.counts["PAUSED"] == 1
    assert second.next_configuration().number == 2


def test_driver_that_vanishes_while_it_stops_paused_trials_leaves_them_paused(tmp_path, monkeypatch):
    first = open_ledger(tmp_path, **{**CHANGES, "trials": 4})
    pause_three(first)
    first.completed(2, {"val_accuracy": 0.7, "macs": 1000.0})
    with monkeypatch.context() as patch:
        patch.setattr("optuna.Study.tell", raise_crash)
        with pytest.raises(CrashError):
            first.end(interrupted=False)
    second = open_ledger(tmp_path, **{**CHANGES, "trials": 4})
    assert not second.has_work
    second.end(interrupted=False)
    assert [r.state for r in storage.read_records(second.folder)] == [
        "COMPLETE",
        "PRUNED",
        "COMPLETE",
        "PRUNED",
    ]


def test_more_trials_may_be_asked_for_after_the_end(tmp_path):
    first = open_ledger(tmp_path, **{**CHANGES, "trials": 4})
    pause_three(first)
    first.completed(2, {"val_accuracy": 0.7, "macs": 1000.0})
    first.end(interrupted=False)
    second = open_ledger(tmp_path, **{**CHANGES, "trials": 5})
    assert second.next_configuration().number == 4
    assert run_to(second, 4, 0, 0.9)
    assert second.next_configuration() is None


def test_abandoned_paused_trials_are_stopped_where_they_paused(tmp_path):
    ledger = open_ledger(tmp_path, **CHANGES)
    pause_three(ledger)
    assert storage.abandon(ledger.folder) == [1, 2, 3]
    records = storage.read_records(ledger.folder)
    assert [record.state for record in records] == ["COMPLETE", "PRUNED", "FAIL", "PRUNED"]


def test_every_trial_runs_to_its_end_without_halving(tmp_path):
    ledger = open_ledger(tmp_path, halving="none", trials=12)
    for number in range(12):
        assert ledger.next_configuration().number == number
        assert ledger.reported(number, 0, {"val_accuracy": 1 - number / 20, "macs": 1000.0 + number})


def test_a_pause_counts_as_a_trial_without_growth_and_its_end_not_again(tmp_path):
    ledger = open_ledger(tmp_path, **{**CHANGES, "trials": 20})
    ledger.observers = [PatienceWatch(Patience(3), ledger)]
    configuration = [ledger.next_configuration() for _ in range(4)][1]
    ledger.completed(1, metrics_of(ledger, configuration, 0.9))
    run_to(ledger, 2, 0, 0.5)
    assert run_to(ledger, 3, 0, 0.6)
    assert not ledger.finish_reason
    ledger.completed(3, {"val_accuracy": 0.1, "macs": 498_750.0})
    assert not ledger.finish_reason
    assert ledger.next_configuration().number == 4
    run_to(ledger, 4, 0, 0.3)
    assert ledger.finish_reason


def test_observers_hear_of_each_pause_and_each_promotion(tmp_path):
    heard = []

    class Pauses(StudyObserver):
        def trial_changed(self, record):
            heard.append((record.number, record.is_paused))

    ledger = open_ledger(tmp_path, [Pauses()], **CHANGES)
    pause_three(ledger)
    assert (1, True) in heard
    ledger.next_configuration()
    run_to(ledger, 4, 0, 0.3)
    ledger.next_configuration()
    assert heard[-1] == (1, False)


@pytest.mark.parametrize("halving", ["promoting", "stopping"])
def test_what_a_study_starts_with_always_runs_to_its_end_and_the_rest_is_compared_with_it(tmp_path, halving):
    ledger = open_ledger(tmp_path, halving=halving, trials=9)
    sources = [ledger.next_configuration().source for _ in range(4)]
    assert sources == ["dense", "uniform", "uniform", "uniform"]
    for number in range(1, 4):
        assert run_to(ledger, number, 0, 0.9 - number / 10, macs=1000.0 + number)
    assert {ledger.next_configuration().source for _ in range(4)} == {"sampler"}
    goes_on = [run_to(ledger, number, 0, 0.5, macs=2000.0) for number in range(4, 8)]
    assert not any(goes_on)
