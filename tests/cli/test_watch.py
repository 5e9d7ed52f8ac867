"""The line of progress of a study says how long it still takes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from dirprune.cli.watch import StudyProgress
from dirprune.records.folder import StudyFolder
from dirprune.study.observer import StudySummary
from tests.records.example_study import N_CHANNELS, OBJECTIVES, make_trial


@pytest.mark.parametrize(
    ("time_limit_s", "left"),
    [(None, "about 0:40 left"), (900.0, "about 0:40 left"), (15.0, "about 0:05 left")],
)
def test_time_left_is_that_of_the_trials_or_of_the_limit_whatever_ends_first(
    time_limit_s: float | None, left: str, tmp_path: Path
) -> None:
    times = iter([0.0, 0.0, *[10.0] * 20])
    progress = StudyProgress(io.StringIO(), lambda: next(times), time_limit_s)
    summary = StudySummary(
        name="lenet",
        study_id="5ca1ab1e",
        folder=StudyFolder(tmp_path),
        objectives=OBJECTIVES,
        reference_point={},
        dense_costs={},
        n_channels=N_CHANNELS,
        n_trials=5,
        seed=0,
    )
    progress.study_started(summary)
    trial = make_trial(0, "dense", 1.0, 0.99)
    progress.trial_changed(replace(trial, state="RUNNING"))
    progress.trial_changed(trial)
    assert progress.line().endswith(f"| 0:10, {left}")
