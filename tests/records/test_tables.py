"""Tables: their columns, their order, and what is read back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dirprune.errors import StudyError
from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.tables import load_front, write_front, write_trials
from dirprune.study.objectives import Objective
from tests.records.example_study import OBJECTIVES, make_study, make_trial

RECORDS = mark_front(make_study(), OBJECTIVES)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_front_begins_with_the_promised_columns_and_is_sorted_by_macs(tmp_path: Path) -> None:
    write_front(tmp_path / "front.csv", RECORDS, OBJECTIVES)
    head = (tmp_path / "front.csv").read_text().splitlines()[0]
    assert head == (
        "trial,source,val_accuracy,test_accuracy,macs,parameters,method,architecture,options,val_loss,wall_time_s"
    )
    rows = read(tmp_path / "front.csv")
    macs = [int(row["macs"]) for row in rows]
    assert macs == sorted(macs)
    assert {int(row["trial"]) for row in rows} == {r.number for r in RECORDS if r.is_front}
    assert rows[-1]["architecture"] == "10-20-100-25"
    assert rows[-1]["val_accuracy"] == "0.9925"


def test_every_trial_has_its_row_with_state_and_reason(tmp_path: Path) -> None:
    failed = make_trial(60, "sampler", 0.5, 0.5, state="FAIL", reason='ValueError: "no", really', metrics={})
    write_trials(tmp_path / "trials.csv", [failed, *RECORDS], OBJECTIVES)
    rows = read(tmp_path / "trials.csv")
    assert [int(row["trial"]) for row in rows] == list(range(61))
    assert rows[60]["reason"] == 'ValueError: "no", really'
    assert rows[60]["state"] == "FAIL"
    assert rows[60]["val_accuracy"] == rows[60]["macs"] == ""
    assert rows[3]["state"] == "PRUNED"
    assert rows[3]["images"] == "1200"
    assert {row["is_front"] for row in rows} == {"0", "1"}


def test_columns_follow_the_objectives_of_another_task(tmp_path: Path) -> None:
    trial = make_trial(0, "sampler", 0.5, 0.5, metrics={"val_iou": 0.25, "test_iou": 0.5, "macs": 9.0})
    write_front(tmp_path / "front.csv", [trial.on_front(True)], [Objective("val_iou", "maximize")])
    assert (tmp_path / "front.csv").read_text() == (
        "trial,source,val_iou,test_iou,macs,parameters,method,architecture,options\n"
        '0,sampler,0.25,0.5,9,,dirichlet,5-10-50-12,"{""lr"": 0.001, ""norm"": ""l1""}"\n'
    )


def test_front_that_was_written_is_loaded(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "lenet")
    write_front(folder.front_csv, RECORDS, OBJECTIVES)
    points = load_front(folder.root)
    front = {record.number: record for record in RECORDS if record.is_front}
    assert {point.trial for point in points} == set(front)
    for point in points:
        record = front[point.trial]
        assert point.metrics == record.metrics
        assert point.architecture == tuple(record.architecture.values())
        assert point.options == record.options
        assert (point.source, point.method) == (record.source, record.method)
        assert point.model_dir == folder.model_dir(point.trial)


def test_folder_without_a_front_and_a_foreign_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match=r"expected a study with front.csv in .*, found none; check the path"
    ):
        load_front(tmp_path)
    (tmp_path / "front.csv").write_text("a,b\n1,2\n")
    with pytest.raises(StudyError, match="is not a front as dirprune writes it"):
        load_front(str(tmp_path))
