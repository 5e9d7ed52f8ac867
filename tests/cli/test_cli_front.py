"""`dirprune front` shows what a study's storage says; `dirprune abandon` ends what nobody continues."""

from __future__ import annotations

import csv

import optuna

from dirprune.records.folder import StudyFolder
from dirprune.tuning import storage
from tests.cli.conftest import Run, add_trial


def test_front_prints_and_redraws_what_is_not_dominated(run: Run, folder: StudyFolder) -> None:
    result = run("front", folder.root)
    assert (result.status, result.errors) == (0, "")
    lines = result.output.splitlines()
    assert lines[0] == "3 COMPLETE, 1 RUNNING"
    assert lines[1].split() == [
        *["trial", "source", "val_accuracy", "test_accuracy"],
        *["macs", "parameters", "method", "architecture"],
    ]
    assert lines[2].split() == [
        "1",
        "sampler",
        "0.9800",
        "0.9700",
        "236,366",
        "23,636",
        "magnitude",
        "8-9-36-17",
    ]
    assert lines[3].split()[:3] == ["0", "dense", "0.9900"]
    assert lines[4] == ""
    with folder.front_csv.open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["1", "0"]
    for path in (folder.trials_csv, folder.front_html, folder.front_png, folder.architectures_png):
        assert path.stat().st_size > 0


def test_trial_above_a_limit_is_not_on_the_front_and_the_table_says_why(
    run: Run, folder: StudyFolder
) -> None:
    study = storage.load_study(folder, storage.read_study_json(folder))
    add_trial(folder, study, 4, 0.995, 498_750, (10, 20, 100, 25), {"macs": 348_750.0, "val_accuracy": -0.1})
    result = run("front", folder.root)
    assert (result.status, result.errors) == (0, "")
    assert result.output.startswith("4 COMPLETE, 1 RUNNING\n")
    with folder.front_csv.open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["1", "0"]
    with folder.trials_csv.open() as file:
        row = list(csv.DictReader(file))[4]
    assert (row["is_front"], row["reason"]) == ("0", "macs is 348,750 above the limit")
    assert "macs is 348,750 above the limit" in folder.front_html.read_text()


def test_abandon_ends_the_running_trials_and_only_those(run: Run, folder: StudyFolder) -> None:
    assert run("abandon", folder.root).output == "abandoned: 1 trial (3)\n"
    states = [record.state for record in storage.read_records(folder)]
    assert states == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    assert storage.read_records(folder)[3].reason == "abandoned"
    assert "abandoned" in folder.trials_csv.read_text().splitlines()[-1]
    assert run("abandon", folder.root).output.startswith("abandoned: none")
    assert run("front", folder.root).output.splitlines()[:3] == [
        "3 COMPLETE, 1 FAIL",
        "1 of 4 trials failed:",
        "  1  abandoned (trial 3)",
    ]


def test_front_says_why_trials_failed_and_which_method_never_worked(run: Run, folder: StudyFolder) -> None:
    study = storage.load_study(folder, storage.read_study_json(folder))
    for number in (4, 5):
        add_trial(folder, study, number, None, 300_000, (8, 12, 36, 17), method="taylor")
        reason = {storage.REASON: f"ValueError: no room for batch {number}"}
        storage.settle(study, number, optuna.trial.TrialState.FAIL, reason)
    result = run("front", folder.root)
    assert (result.status, result.errors) == (0, "")
    assert result.output.splitlines()[:4] == [
        "3 COMPLETE, 2 FAIL, 1 RUNNING",
        "2 of 6 trials failed:",
        "  2  ValueError: no room for batch 4 (trials 4, 5; figures of trial 4)",
        "method taylor: all 2 trials failed: ValueError: no room for batch 4",
    ]


def test_abandon_is_refused_while_a_driver_holds_the_study(run: Run, folder: StudyFolder) -> None:
    with storage.hold_study(folder):
        result = run("abandon", folder.root)
    assert result.status == 2
    assert result.errors.count("\n") == 1
    assert "is being driven" in result.errors
    assert storage.read_records(folder)[3].state == "RUNNING"


def test_a_study_folder_of_another_schema_ends_in_one_line(run: Run, folder: StudyFolder) -> None:
    folder.study_json.write_text('{"schema": 99}')
    for command in ("front", "abandon"):
        result = run(command, folder.root)
        assert result.status == 2
        assert result.errors.count("\n") == 1
        assert "schema" in result.errors
