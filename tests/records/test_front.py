"""The front: who is on it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dirprune.records.front import GrowingFront, mark_front, sort_front
from dirprune.study.objectives import Objective
from tests.records.example_study import LATENCY_OBJECTIVES, OBJECTIVES, make_study, make_timed, make_trial


def numbers_on_front(*trials: object) -> list[int]:
    return [record.number for record in sort_front(mark_front(trials, OBJECTIVES))]  # type: ignore[arg-type]


def test_only_complete_trials_that_nobody_dominates_are_on_the_front() -> None:
    dense = make_trial(0, "dense", 1.0, 0.99)
    beaten = make_trial(1, "sampler", 0.6, 0.90)
    small = make_trial(2, "sampler", 0.5, 0.95)
    stopped = make_trial(3, "sampler", 0.1, 0.97, state="PRUNED")
    failed = make_trial(4, "sampler", 0.1, 0.97, state="FAIL")
    running = make_trial(5, "sampler", 0.1, 0.97, state="RUNNING")
    assert numbers_on_front(dense, beaten, small, stopped, failed, running) == [2, 0]


def test_of_trials_with_the_same_values_the_lowest_number_is_on_the_front() -> None:
    assert numbers_on_front(make_trial(7, "sampler", 0.5, 0.9), make_trial(2, "uniform", 0.5, 0.9)) == [2]


def test_trial_without_a_finite_objective_is_not_on_the_front() -> None:
    nan = make_trial(0, "sampler", 0.5, math.nan)
    missing = make_trial(1, "sampler", 0.5, 0.9, metrics={"macs": 5.0})
    assert numbers_on_front(nan, missing) == []


def test_order_of_the_records_stays_and_an_old_mark_goes() -> None:
    records = [record.on_front(True) for record in make_study()]
    marked = mark_front(records, OBJECTIVES)
    assert [record.number for record in marked] == [record.number for record in records]
    assert 3 <= sum(record.is_front for record in marked) < len(marked) / 2


def test_one_objective_has_one_trial_on_the_front() -> None:
    marked = mark_front(make_study(), [Objective("val_accuracy", "maximize")])
    best = max((r for r in marked if r.state == "COMPLETE"), key=lambda r: r.metrics["val_accuracy"])
    assert [record.number for record in marked if record.is_front] == [best.number]


def test_modelled_latencies_within_the_error_of_their_model_are_equal() -> None:
    accurate, as_fast, faster = make_timed(0, 0.95, 10.0), make_timed(1, 0.94, 8.5), make_timed(2, 0.93, 8.0)
    marked = mark_front([accurate, as_fast, faster], LATENCY_OBJECTIVES)
    assert [record.number for record in sort_front(marked)] == [2, 0]
    exact = [replace(objective, margin=0.0) for objective in LATENCY_OBJECTIVES]
    assert [record.number for record in sort_front(mark_front(marked, exact))] == [2, 1, 0]


def test_a_trial_within_the_error_of_one_that_is_beaten_later_comes_back_with_its_model() -> None:
    growing = GrowingFront(LATENCY_OBJECTIVES)
    growing.add_([make_timed(0, 0.95, 10.0)])
    assert growing.add_([make_timed(1, 0.94, 8.5)]) == []
    assert 1 not in growing
    assert growing.add_([make_timed(2, 0.97, 12.0), make_timed(3, 0.94, 8.6)]) == [3]
    assert [record.number for record in growing.records] == [1, 2]
    assert [record.number for record in growing.undominated] == [0, 1, 2]


@given(
    values=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12)), max_size=15), seed=st.integers(0, 99)
)
def test_front_with_a_margin_that_grows_is_that_of_all_trials(
    values: list[tuple[int, int]], seed: int
) -> None:
    records = [make_timed(n, a / 6, float(ms)) for n, (a, ms) in enumerate(values)]
    growing, gone = GrowingFront(LATENCY_OBJECTIVES), set()
    for place in np.random.default_rng(seed).permutation(len(records)):
        gone |= set(growing.add_([records[place]]))
        assert not gone & {record.number for record in growing.records}
    assert growing.records == sort_front(mark_front(records, LATENCY_OBJECTIVES))


@given(values=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25), seed=st.integers(0, 99))
def test_front_that_grows_trial_by_trial_is_that_of_all_of_them(
    values: list[tuple[int, int]], seed: int
) -> None:
    records = [
        make_trial(n, "sampler", 0.5, 0.5, metrics={"val_accuracy": a / 6, "macs": float(m)})
        for n, (a, m) in enumerate(values)
    ]
    growing, gone = GrowingFront(OBJECTIVES), set()
    metrics = [objective.metric for objective in OBJECTIVES]
    for place in np.random.default_rng(seed).permutation(len(records)):
        before, grows = {r.objectives(metrics) for r in growing.records}, growing.grows_by(records[place])
        gone |= set(growing.add_([records[place]]))
        assert grows == ({r.objectives(metrics) for r in growing.records} != before)
    marked = mark_front(records, OBJECTIVES)
    assert growing.records == sort_front(marked)
    assert gone == {record.number for record in marked if not record.is_front}
    assert all((record.number in growing) == record.is_front for record in marked)
