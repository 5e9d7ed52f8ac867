"""The hypervolume of a study: which trials count."""

from __future__ import annotations

import pytest

from dirprune.records.hypervolume import compute_hypervolume, trace_hypervolume
from tests.records.example_study import OBJECTIVES, make_trial

REFERENCE = {"val_accuracy": 0.1, "macs": 600_000.0}
COSTS = {"macs": 600_000.0}


def test_only_finished_trials_that_may_be_on_the_front_count() -> None:
    metrics = {"val_accuracy": 0.6, "macs": 300_000.0}
    trials = [
        make_trial(0, "dense", 1.0, 0.99, is_acceptable=False),
        make_trial(1, "uniform", 0.5, 0.6, metrics=metrics),
        make_trial(2, "sampler", 0.5, 0.9, state="PRUNED"),
    ]
    assert compute_hypervolume(trials, OBJECTIVES, REFERENCE, COSTS) == pytest.approx(0.5 * 0.5)
    steps = trace_hypervolume(trials, OBJECTIVES, REFERENCE, COSTS)
    assert [(step.record.number, step.front_size) for step in steps] == [(0, 0), (1, 1)]
    assert [step.hypervolume for step in steps] == pytest.approx([0.0, 0.25])
