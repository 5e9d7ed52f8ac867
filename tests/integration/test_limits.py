"""A limit of cost that the dense network is above, on a real Ray: from the command line to the tables."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from dirprune.cli.app import program
from dirprune.cli.errors import run_command
from dirprune.cli.study import make_command
from dirprune.records.folder import StudyFolder
from tests.integration.toy_study import spec


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_study_under_a_limit_ends_in_networks_within_it(tmp_path, capsys):
    study = replace(spec, trials=4, epochs=0.1, dense_epochs=3)
    arguments = ["--output", str(tmp_path), "--no-tracking", "--max-macs", "200"]
    arguments += ["--objectives", "val_mae:minimize", "--reference-point", "val_mae=30", "--finalists", "1"]
    arguments += ["--final-epochs", "0.1", "--final-seeds", "1"]
    status = run_command(make_command(study), arguments, name="study")
    out, err = capsys.readouterr()
    assert status == 0, out + err
    folder = StudyFolder(tmp_path / "toy")
    with folder.trials_csv.open(newline="") as file:
        dense, *others = csv.DictReader(file)
    assert float(dense["val_mae"]) < min(float(row["val_mae"]) for row in others), "the limit decides"
    assert (dense["state"], dense["is_front"]) == ("COMPLETE", "0")
    assert dense["reason"] == "macs is 184 above the limit"
    (best,) = (row for row in others if row["is_front"] == "1")
    assert float(best["macs"]) <= 200
    assert [path.name for path in folder.models_dir.iterdir()] == [best["trial"]]
    assert "Pareto front: 1 networks" in out
    assert "final front" in out
    assert run_command(program, ["front", str(folder.root)], name="dirprune") == 0
    table = capsys.readouterr().out
    assert "dense" not in table
    assert f"\n{best['trial']}  " in table
