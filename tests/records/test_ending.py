"""How a study's last run ended is noted in its folder, and not while another one is at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirprune.errors import StudyError
from dirprune.records.ending import EndingWriter, read_ending
from dirprune.records.finalists import FinalTraining
from dirprune.records.folder import StudyFolder
from dirprune.study.observer import StudySummary
from tests.records.example_study import N_CHANNELS, OBJECTIVES, make_trial

REASON = "10 trials in a row failed"


@pytest.fixture
def summary(tmp_path: Path) -> StudySummary:
    folder = StudyFolder(tmp_path / "lenet")
    return StudySummary("lenet", "5ca1ab1e", folder, OBJECTIVES, {}, {}, N_CHANNELS, 5, 0)


def start(summary: StudySummary) -> EndingWriter:
    writer = EndingWriter()
    writer.study_started(summary)
    return writer


def test_a_study_that_ended_by_itself_says_why_until_it_goes_on(summary: StudySummary) -> None:
    assert read_ending(summary.folder) is None
    writer = start(summary)
    writer.study_failed(REASON)
    writer.study_ended([], interrupted=False)
    assert read_ending(summary.folder) == REASON
    again = start(summary)
    assert read_ending(summary.folder) is None  # as long as it runs, and for good where it is killed
    again.study_ended([], interrupted=False)
    assert read_ending(summary.folder) == ""


def test_finalists_that_end_by_themselves_count_as_well(summary: StudySummary) -> None:
    writer = start(summary)
    writer.study_ended([], interrupted=False)
    writer.study_failed("no room is left")
    writer.finalists_ended([], interrupted=True)
    assert read_ending(summary.folder) == "no room is left"


def test_nothing_is_said_while_finalists_are_trained(summary: StudySummary) -> None:
    writer = start(summary)
    writer.study_ended([], interrupted=False)
    writer.finalist_changed(FinalTraining(make_trial(0, "sampler", 1.0, 0.9), 0))
    assert read_ending(summary.folder) is None  # for good where they are killed
    writer.finalists_ended([], interrupted=False)
    assert read_ending(summary.folder) == ""


def test_another_file_in_its_place_is_refused_in_one_line(summary: StudySummary) -> None:
    start(summary).study_ended([], interrupted=False)
    summary.folder.ending_json.write_text("over")
    with pytest.raises(StudyError, match=r"^expected JSON in .*ending\.json, got something else"):
        read_ending(summary.folder)
