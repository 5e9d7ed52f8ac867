"""Studies of one and of five objectives, and of latency, on a real Ray: from the command line to a front."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise

import pytest

from dirprune import latency
from dirprune.cli.app import program
from dirprune.cli.errors import run_command
from dirprune.cli.study import make_command
from dirprune.latency import LatencyModel
from dirprune.records.folder import StudyFolder
from dirprune.records.tables import load_front
from dirprune.study import latency as study_latency
from dirprune.study.objectives import Objective
from dirprune.tuning import storage
from tests.integration import toy_study
from tests.integration.toy_study import LATENCY_BATCH, spec

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
def test_study_runs_to_its_front(tmp_path, capsys, metrics, ray_address):
    study = replace(
        spec,
        objectives=tuple(Objective(metric, FIVE[metric]) for metric in metrics),
        reference_point={metric: WORST[metric] for metric in metrics if metric in WORST},
        trials=6,
        epochs=2,
        rungs=(0, 1),
        dense_epochs=3,
    )
    arguments = ["--output", str(tmp_path), "--no-tracking", "--ray-address", ray_address]
    status = run_command(make_command(study), arguments, name="study")
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


def count_pass(network, inputs, clock=None):
    """Run a pass, and say that it took as long as its layers are large: a busy core times toys by chance."""
    network(inputs)
    return 0.1 + 1e-3 * sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.usefixtures("on_a_busy_device")
def test_latency_is_an_objective_and_a_limit_and_stays_what_it_was_on_resume(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(latency, "time_pass", count_pass)
    arguments = ["--output", str(tmp_path), "--no-tracking", "--objectives"]
    arguments += ["val_mae:minimize,latency_ms:minimize", "--reference-point", "val_mae=3"]
    batch = ["--latency-batch", str(LATENCY_BATCH)]
    study = replace(spec, trials=5, epochs=1, rungs=(0,), dense_epochs=3)
    command = make_command(study)
    assert run_command(command, [*arguments, *batch, "--max-latency", "0.00001"], name="study") == 2
    assert "latency_ms can be from" in capsys.readouterr().err
    assert run_command(command, [*arguments, *batch], name="study") == 0
    folder = StudyFolder(tmp_path / "toy")
    offered = (
        f"dirprune latency {folder.root} --network FILE.py:Toy --device cpu --batch-size {LATENCY_BATCH}"
    )
    assert f"latency_ms is modelled; {offered} measures" in capsys.readouterr().out
    given = shlex.split(offered.replace("FILE.py", str(toy_study.__file__)))[1:]
    assert run_command(program, [*given, "--batch-size", str(LATENCY_BATCH)], name="dirprune") == 0
    assert folder.latency_csv.exists()
    known = storage.read_study_json(folder)["description"]["latency"]
    records = storage.read_records(folder)
    assert all(record.metrics["latency_ms"] > 0 for record in records)
    dense = records[0].metrics["latency_ms"]
    assert all(record.metrics["latency_ms"] <= dense for record in records)
    assert "latency_ms" in folder.front_csv.read_text().splitlines()[0]
    front = sorted(point.metrics["latency_ms"] for point in load_front(folder))
    apart = 1 + known["error"], 1 - known["error"]
    assert all(fast * apart[0] < slow * apart[1] for fast, slow in pairwise(front))
    resumed = [*arguments, "--resume", "--trials", "6"]
    assert run_command(command, [*resumed, "--latency-batch", "2"], name="study") == 2
    assert "leave --latency-batch out, or choose another --name" in capsys.readouterr().err
    assert run_command(command, resumed, name="study") == 0
    assert storage.read_study_json(folder)["description"]["latency"] == known
    other = tmp_path / "other.json"
    model = LatencyModel.from_json({**known, "constant_ms": 5.0})
    study_latency.write_latency(other, model)
    capsys.readouterr()
    assert run_command(command, [*resumed, "--latency", str(other)], name="study") == 2
    assert "has latency" in capsys.readouterr().err
