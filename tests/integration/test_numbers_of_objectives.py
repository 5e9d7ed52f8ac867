"""Studies of one and of five objectives on a real Ray, from the command line to the printed front."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dirprune.cli.errors import run_command
from dirprune.cli.study import make_command
from dirprune.records.folder import StudyFolder
from dirprune.records.tables import load_front
from dirprune.study.objectives import Objective
from dirprune.tuning import storage
from tests.integration.toy_study import spec

FIVE = {
    "val_mae": "minimize",
    "val_r2": "maximize",
    "val_loss": "minimize",
    "macs": "minimize",
    "parameters": "minimize",
}
WORST = {"val_mae": 3.0, "val_r2": -5.0, "val_loss": 3.0}


@pytest.mark.slow
@pytest.mark.parametrize("metrics", [["val_mae"], list(FIVE)], ids=["one", "five"])
def test_study_runs_to_its_front(tmp_path, capsys, metrics):
    study = replace(
        spec,
        objectives=tuple(Objective(metric, FIVE[metric]) for metric in metrics),
        reference_point={metric: WORST[metric] for metric in metrics if metric in WORST},
        trials=6,
        epochs=2,
        rungs=(0, 1),
        dense_epochs=3,
    )
    status = run_command(make_command(study), ["--output", str(tmp_path), "--no-tracking"], name="study")
    out, err = capsys.readouterr()
    assert status == 0, out + err
    assert "without the sampler's own trials: hypervolume" in out
    folder = StudyFolder(tmp_path / "toy")
    records = storage.read_records(folder)
    complete = [record for record in records if record.state == "COMPLETE"]
    assert {record.state for record in records} <= {"COMPLETE", "PRUNED"}
    front = load_front(folder.root)
    if len(metrics) == 1:
        best = min(record.metrics["val_mae"] for record in complete)
        assert [point.metrics["val_mae"] for point in front] == [pytest.approx(best)]
    for metric in metrics:
        assert metric in folder.front_csv.read_text()
    assert folder.front_html.exists()
    assert folder.front_png.exists()
