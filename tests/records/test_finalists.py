"""Finalists: who is chosen, what their means say, and which of them are on the final front."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirprune.records.finalists import choose_finalists, summarise_finalists, write_finalists
from dirprune.records.front import mark_front, sort_front
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


def test_validation_decides_the_final_front_and_test_does_not():
    small, large = make_trial(1, "sampler", 0.3, 0.95), make_trial(2, "sampler", 0.6, 0.97)
    trainings = [
        (large, [{**large.metrics, "val_accuracy": value, "test_accuracy": 0.99} for value in (0.93, 0.95)]),
        (small, [{**small.metrics, "val_accuracy": value, "test_accuracy": 0.5} for value in (0.94, 0.96)]),
    ]
    first, second = summarise_finalists(trainings, OBJECTIVES)
    assert (first.record.number, second.record.number) == (1, 2)
    assert (first.record.is_front, second.record.is_front) == (True, False)
    assert first.record.metrics["val_accuracy"] == pytest.approx(0.95)
    assert first.spread["val_accuracy"] == pytest.approx(0.01 * 2**0.5)  # deviations of 0.01 over n - 1 = 1
    assert first.spread["macs"] == 0


def test_finalist_without_a_finished_training_is_left_out_and_one_seed_has_no_spread(tmp_path):
    one, none = make_trial(1, "sampler", 0.3, 0.95), make_trial(2, "sampler", 0.6, 0.97)
    finalists = summarise_finalists([(one, [one.metrics]), (none, [])], OBJECTIVES)
    assert [(finalist.record.number, finalist.n_seeds) for finalist in finalists] == [(1, 1)]
    write_finalists(tmp_path / "finalists.csv", finalists)
    with (tmp_path / "finalists.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["trial"], row["is_front"], row["n_seeds"]) == ("1", "1", "1")
    assert float(row["val_accuracy"]) == 0.95
    assert row["val_accuracy_std"] == ""
