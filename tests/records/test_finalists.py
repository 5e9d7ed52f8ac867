"""Finalists: who is chosen, what their means say, and which of them are on the final front."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirprune.errors import StudyError
from dirprune.records.events import EventLog
from dirprune.records.finalists import (
    FinalTraining,
    choose_finalists,
    read_finalists,
    read_trainings,
    summarise_finalists,
    write_finalists,
)
from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front, sort_front
from dirprune.records.tables import load_front
from dirprune.study.floor import Floor
from dirprune.study.objectives import Objective
from tests.records.example_study import OBJECTIVES, make_study, make_trial

REFERENCE = {"val_accuracy": 0.1, "macs": 498_750.0}
SCALE = {"macs": 498_750.0, "parameters": 40_225.0}


def choose(front, n_finalists):
    return choose_finalists(front, n_finalists, OBJECTIVES, REFERENCE, SCALE)


def test_member_that_adds_least_goes_first():
    front = [
        make_trial(1, "sampler", 0.2, 0.90),
        make_trial(2, "sampler", 0.21, 0.9001),  # hardly another trade than trial 1
        make_trial(3, "sampler", 0.5, 0.97),
    ]
    assert [record.number for record in choose(front, 2)] == [1, 3]


def test_dense_network_is_no_finalist():
    front = [make_trial(0, "dense", 1.0, 0.99), make_trial(1, "uniform", 0.5, 0.98)]
    assert [record.number for record in choose(front, 5)] == [1]


@given(st.integers(1, 12), st.integers(0, 20))
def test_so_many_members_of_the_front_are_chosen_in_its_order(n_finalists, seed):
    front = sort_front(mark_front(make_study(40, seed), OBJECTIVES))
    pruned = [record.number for record in front if record.source != "dense"]
    chosen = [record.number for record in choose(front, n_finalists)]
    assert len(chosen) == min(n_finalists, len(pruned))
    assert chosen == [number for number in pruned if number in chosen]


def make_trainings(record, values, state="COMPLETE", **more):
    """Return one training for each value of the validation accuracy."""
    return [
        FinalTraining(
            replace(record, state=state, metrics={**record.metrics, "val_accuracy": value, **more}), seed
        )
        for seed, value in enumerate(values)
    ]


def test_validation_decides_the_final_front_and_test_does_not():
    small, large = make_trial(1, "sampler", 0.3, 0.95), make_trial(2, "sampler", 0.6, 0.97)
    trainings = [
        *make_trainings(small, (0.94, 0.96), test_accuracy=0.5),
        *make_trainings(large, (0.93, 0.95), test_accuracy=0.99),
    ]
    first, second = summarise_finalists(trainings, OBJECTIVES)
    assert (first.record.number, second.record.number) == (1, 2)
    assert (first.record.is_front, second.record.is_front) == (True, False)
    assert first.record.metrics["val_accuracy"] == pytest.approx(0.95)
    assert first.spread["val_accuracy"] == pytest.approx(0.01 * 2**0.5)  # deviations of 0.01 over n - 1 = 1
    assert first.spread["macs"] == 0


def test_a_mean_below_the_least_accuracy_is_not_on_the_final_front():
    small, large = make_trial(1, "sampler", 0.3, 0.955), make_trial(2, "sampler", 0.6, 0.97)
    trainings = [*make_trainings(small, (0.94, 0.955)), *make_trainings(large, (0.96, 0.95))]
    finalists = summarise_finalists(trainings, OBJECTIVES, Floor(0.95, 0))
    assert [finalist.record.is_front for finalist in finalists] == [False, True]
    assert all(finalist.record.is_front for finalist in summarise_finalists(trainings, OBJECTIVES))


def test_network_to_deploy_is_the_best_by_validation_and_of_equals_the_first():
    trial = make_trial(1, "sampler", 0.3, 0.95)
    (finalist,) = summarise_finalists(make_trainings(trial, (0.94, 0.96, 0.96)), OBJECTIVES)
    assert finalist.best == 1
    losses = (Objective("val_accuracy", "minimize"), OBJECTIVES[1])
    assert summarise_finalists(make_trainings(trial, (0.94, 0.96)), losses)[0].best == 0
    assert summarise_finalists(make_trainings(trial, (0.94, 0.96)), OBJECTIVES[1:])[0].best == 0


def test_training_that_has_not_finished_does_not_count_and_one_seed_has_no_spread(tmp_path):
    one, none = make_trial(1, "sampler", 0.3, 0.95), make_trial(2, "sampler", 0.6, 0.97)
    trainings = [
        *make_trainings(one, (0.95,)),
        *make_trainings(none, (0.97,), "FAIL"),
        *make_trainings(none, (0.97,), "RUNNING"),
    ]
    finalists = summarise_finalists(trainings, OBJECTIVES)
    assert [(finalist.record.number, finalist.n_seeds) for finalist in finalists] == [(1, 1)]
    write_finalists(tmp_path / "finalists.csv", finalists)
    with (tmp_path / "finalists.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["trial"], row["is_front"], row["n_seeds"]) == ("1", "1", "1")
    assert row["model"] == "finalists/1-0/models/1"
    assert float(row["val_accuracy"]) == 0.95
    assert row["val_accuracy_std"] == ""


def test_final_front_reads_back_with_means_spreads_and_the_models_to_deploy(tmp_path):
    folder = StudyFolder(tmp_path)
    small, large = make_trial(1, "sampler", 0.3, 0.95), make_trial(2, "sampler", 0.6, 0.97)
    finalists = summarise_finalists(
        [*make_trainings(small, (0.94, 0.96)), *make_trainings(large, (0.97,))], OBJECTIVES
    )
    with pytest.raises(StudyError, match="train finalists first, with --finalists"):
        load_front(folder, final=True)
    write_finalists(folder.final_front_csv, finalists)
    first, second = load_front(folder, final=True)
    assert (first.trial, first.n_seeds, first.source) == (1, 2, "sampler")
    assert first.metrics["val_accuracy"] == pytest.approx(0.95)
    assert first.spread["val_accuracy"] == pytest.approx(0.01 * 2**0.5)
    assert set(first.metrics) == set(small.metrics)
    assert first.model_dir == folder.finalist(1, 1).model_dir(1)
    assert (second.trial, second.n_seeds, second.spread) == (2, 1, {})


def test_trainings_are_read_from_what_they_said(tmp_path):
    folder, trial = StudyFolder(tmp_path), make_trial(1, "sampler", 0.3, 0.95)
    for seed, ending in enumerate(("finished", "failed", None)):
        log = EventLog(folder.finalist(1, seed).events(1), "a")
        log.append("started", resumed_from=None)
        log.append("report", images=100, metrics={"val_accuracy": 0.5})
        if ending == "finished":
            log.append("finished", metrics={"val_accuracy": 0.75, "macs": 10.0})
        elif ending == "failed":
            log.append("failed", reason="ValueError: no")
    folder.finalist(7, 0).root.mkdir()  # of no known trial
    (folder.finalists_dir / "notes").mkdir()
    finished, failed, running = read_trainings(folder, [trial])
    assert [t.record.state for t in (finished, failed, running)] == ["COMPLETE", "FAIL", "RUNNING"]
    assert [t.repetition for t in (finished, failed, running)] == [0, 1, 2]
    assert finished.record.metrics["val_accuracy"] == 0.75
    assert failed.record.reason == "ValueError: no"
    assert running.record.curve == ((100, {"val_accuracy": 0.5}),)
    assert running.record.architecture == trial.architecture
    assert [f.n_seeds for f in read_finalists(folder, [trial], OBJECTIVES)] == [1]
