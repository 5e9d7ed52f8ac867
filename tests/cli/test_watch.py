"""The line of progress of a study says how long it still takes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dirprune.cli.watch import StudyProgress
from dirprune.records.finalists import FinalTraining
from dirprune.records.folder import StudyFolder
from dirprune.study.observer import StudySummary
from dirprune.tuning.finalists import FinalistOptions
from tests.records.example_study import N_CHANNELS, OBJECTIVES, make_trial

TRIAL = make_trial(0, "dense", 1.0, 0.99)


def start(
    folder: Path, times: Iterator[float], resumed: bool = False, **options: object
) -> tuple[StudyProgress, io.StringIO]:
    """Return the progress of a study of five trials by a clock that says these times."""
    stream = io.StringIO()
    progress = StudyProgress(stream, lambda: next(times), **options)  # type: ignore[arg-type]
    progress.study_started(
        StudySummary(
            name="lenet",
            study_id="5ca1ab1e",
            folder=StudyFolder(folder),
            objectives=OBJECTIVES,
            reference_point={},
            dense_costs={},
            n_channels=N_CHANNELS,
            n_trials=5,
            seed=0,
            resumed=resumed,
        )
    )
    return progress, stream


@pytest.mark.parametrize(
    ("time_limit_s", "left"),
    [(None, "about 0:40 left"), (900.0, "about 0:40 left"), (15.0, "about 0:05 left")],
)
def test_time_left_is_that_of_the_trials_or_of_the_limit_whatever_ends_first(
    time_limit_s: float | None, left: str, tmp_path: Path
) -> None:
    progress, _ = start(tmp_path, iter([0.0, 0.0, *[10.0] * 20]), time_limit_s=time_limit_s)
    progress.trial_changed(replace(TRIAL, state="RUNNING"))
    progress.trial_changed(TRIAL)
    assert progress.line().endswith(f"| 0:10, {left}")


def test_a_resumed_study_shows_no_front_before_it_is_known(tmp_path: Path) -> None:
    progress, _ = start(tmp_path, itertools.count(), resumed=True)
    progress.trial_changed(TRIAL)
    progress.trial_changed(replace(TRIAL, number=1, state="RUNNING"))
    assert progress.line().startswith("trials 1/5: 1 done, 1 running, 0 stopped | 0:")
    progress.front_changed([TRIAL], 0.5, {})
    assert "| front 1, hypervolume 0.5000 |" in progress.line()


def test_finalists_are_counted_from_the_end_of_the_search(tmp_path: Path) -> None:
    times = iter([0.0, 0.0, *[100.0] * 8, *[130.0] * 20])
    progress, stream = start(tmp_path, times, finalists=FinalistOptions(6, 20.0, 2))
    pruned = replace(TRIAL, source="sampler")
    progress.front_changed([replace(TRIAL, source="dense"), pruned, pruned], 0.5, {})  # dense is no finalist
    progress.study_ended([TRIAL], interrupted=False)
    progress.finalist_changed(FinalTraining(TRIAL, 0))  # of an earlier run
    running = replace(TRIAL, state="RUNNING")
    progress.finalist_changed(FinalTraining(running, 1))
    progress.finalist_changed(FinalTraining(TRIAL, 1))
    progress.finalist_changed(FinalTraining(replace(running, number=7), 0))
    progress.finalists_ended([], interrupted=True)
    assert stream.getvalue().splitlines()[-1] == "finalists 2/4 trained, 1 running | 0:30, about 1:00 left"
